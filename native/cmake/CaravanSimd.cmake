# SIMD variants: which one runs is decided at run time, so each lives in a file of its own, compiled for its
# instruction set alone, and nothing else in the tree may use more than the architecture's baseline.
#   *_avx2.cpp     AVX2, FMA, F16C
#   *_avx512.cpp   AVX-512 F, BW, VL, DQ and FMA
#   *_avx512bf16.cpp, *_amx.cpp   the extensions of that name on top of AVX-512
# They are left out where the target is not x86-64; the code that dispatches asks CARAVAN_X86_64.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$" AND NOT CMAKE_OSX_ARCHITECTURES MATCHES "arm64")
  set(CARAVAN_X86_64 ON)
  target_compile_definitions(caravan_options INTERFACE CARAVAN_X86_64=1)
endif()

set(_avx512 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx2 -mfma -mf16c)
set(CARAVAN_SIMD_FLAGS_avx2 -mavx2 -mfma -mf16c)
set(CARAVAN_SIMD_FLAGS_avx512 ${_avx512})
set(CARAVAN_SIMD_FLAGS_avx512bf16 ${_avx512} -mavx512bf16)
set(CARAVAN_SIMD_FLAGS_amx ${_avx512} -mavx512bf16 -mamx-tile -mamx-bf16)
if(MSVC)
  set(CARAVAN_SIMD_FLAGS_avx2 /arch:AVX2)
  set(CARAVAN_SIMD_FLAGS_avx512 /arch:AVX512)
  set(CARAVAN_SIMD_FLAGS_avx512bf16 /arch:AVX512 /D__AVX512BF16__=1)
  set(CARAVAN_SIMD_FLAGS_amx /arch:AVX512)
endif()

# caravan_apply_simd(VAR): gives each variant among the sources in VAR its flags, or removes it from VAR.
function(caravan_apply_simd sources_variable)
  set(sources ${${sources_variable}})
  foreach(variant avx2 avx512 avx512bf16 amx)
    set(matching ${sources})
    list(FILTER matching INCLUDE REGEX "_${variant}\\.cpp$")
    if(NOT matching)
      continue()
    endif()
    if(CARAVAN_X86_64)
      set_property(SOURCE ${matching} APPEND PROPERTY COMPILE_OPTIONS ${CARAVAN_SIMD_FLAGS_${variant}})
    else()
      list(REMOVE_ITEM sources ${matching})
    endif()
  endforeach()
  set(${sources_variable} ${sources} PARENT_SCOPE)
endfunction()
