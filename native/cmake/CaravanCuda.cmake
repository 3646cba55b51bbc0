# The CUDA language and what every kernel is compiled with. CARAVAN_CUDA_ARCH: `native` (the GPU of this machine), `all`
# (what a release carries: machine code of every architecture we name, and PTX of the oldest for those to come), or a
# list of CMake's names ("90a").
set(CARAVAN_CUDA_ARCH "native" CACHE STRING "native, all, or a list such as 80;90a")
if(CARAVAN_CUDA_ARCH STREQUAL "all")
  set(CMAKE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90a-real 100-real 120-real 80-virtual)
else()
  set(CMAKE_CUDA_ARCHITECTURES ${CARAVAN_CUDA_ARCH})
endif()
enable_language(CUDA)
# Hopper's own instructions need its name with the a, which nvcc does not take `native` for.
if(CARAVAN_CUDA_ARCH STREQUAL "native" AND "${CMAKE_CUDA_ARCHITECTURES_NATIVE}" MATCHES "^90(-real)?$")
  set(CMAKE_CUDA_ARCHITECTURES 90a-real)
endif()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
# CMake 3.25 does not know that nvcc can.
set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
find_package(CUDAToolkit 12.8 REQUIRED)
# The functions of kernels/dtype.h and philox.h are constexpr: --expt-relaxed-constexpr lets kernels call them.
# --fmad=false would cost speed for nothing: kernels say by intrinsics where a rounding matters.
add_library(caravan_cuda_options INTERFACE)
target_compile_options(caravan_cuda_options INTERFACE
  $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr --extra-device-vectorization -Xcompiler=-Wall,-Wextra>)
