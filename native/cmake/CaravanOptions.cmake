# What every target is compiled and linked with: the interface target `caravan_options`.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
find_package(Threads REQUIRED)

add_library(caravan_options INTERFACE)
target_include_directories(caravan_options INTERFACE ${CMAKE_CURRENT_SOURCE_DIR})
target_include_directories(caravan_options SYSTEM INTERFACE ${CMAKE_CURRENT_SOURCE_DIR}/third_party)
target_link_libraries(caravan_options INTERFACE Threads::Threads ${CMAKE_DL_LIBS})

if(MSVC)
  target_compile_options(caravan_options INTERFACE /W4 /fp:precise /utf-8 /bigobj)
  target_compile_definitions(caravan_options INTERFACE NOMINMAX WIN32_LEAN_AND_MEAN)
else()
  string(REPLACE "-O2" "-O3" CMAKE_CXX_FLAGS_RELWITHDEBINFO "${CMAKE_CXX_FLAGS_RELWITHDEBINFO}")
  # Without -ffp-contract=off the compiler fuses a*b+c where it likes, so the same sum would differ between the
  # dispatch variants and between compilers. A file that wants FMA says so by intrinsics.
  target_compile_options(caravan_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -ffp-contract=off>)
endif()

if(CARAVAN_SANITIZE)
  if(NOT CARAVAN_SANITIZE MATCHES "^(address|thread|undefined)$")
    message(FATAL_ERROR "CARAVAN_SANITIZE is '${CARAVAN_SANITIZE}': choose address, thread or undefined")
  endif()
  # At -O3, or with -g's account of every variable, GCC takes minutes over one instrumented kernel.
  target_compile_options(caravan_options INTERFACE -fsanitize=${CARAVAN_SANITIZE} -fno-omit-frame-pointer -g1 -O1)
  target_link_options(caravan_options INTERFACE -fsanitize=${CARAVAN_SANITIZE})
  if(CARAVAN_SANITIZE STREQUAL "undefined")
    target_compile_options(caravan_options INTERFACE -fno-sanitize-recover=all)
  endif()
endif()

# caravan_library(NAME SOURCES...): a static library, or, while its folder holds no source, an interface target, so
# that whoever links it need not care.
function(caravan_library name)
  if(ARGN)
    add_library(${name} STATIC ${ARGN})
    target_link_libraries(${name} PUBLIC caravan_options)
  else()
    add_library(${name} INTERFACE)
    target_link_libraries(${name} INTERFACE caravan_options)
  endif()
endfunction()
