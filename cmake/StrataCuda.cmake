# The CUDA backend: compiled by nvcc with g++ 12 as its host compiler, the runtime linked statically.
# The program needs no driver to start; src/kernels/cuda says so where there is none.

# Compute capabilities to make machine code for; N-ptx is portable code that the driver compiles.
# Releases are built for 75;80;86;89;90a;100;120;90-ptx.
set(STRATA_CUDA_ARCHS "90a;80-ptx" CACHE STRING "Cards to build for, e.g. 75;86;90a;80-ptx")

find_program(STRATA_NVCC nvcc HINTS /usr/local/cuda/bin)
if(NOT STRATA_NVCC)
  message(FATAL_ERROR "STRATA_CUDA needs nvcc of the CUDA toolkit 12.4 or newer in PATH or /usr/local/cuda/bin")
endif()
find_program(STRATA_CUDA_HOST NAMES g++-12 g++)
set(CMAKE_CUDA_COMPILER ${STRATA_NVCC})
set(CMAKE_CUDA_HOST_COMPILER ${STRATA_CUDA_HOST})
set(CMAKE_CUDA_ARCHITECTURES OFF)  # -gencode below
enable_language(CUDA)
# CMake 3.25 does not know how nvcc 13 is asked for C++20.
set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
find_package(CUDAToolkit REQUIRED)
set(CMAKE_CUDA_FLAGS_RELEASE "-O3 -DNDEBUG")

# Contraction is off, as on the CPU: kernels that want a fused multiply-add say so.
set(cuda_options -fmad=false -Xcompiler=-Wall,-Wextra)
if(STRATA_WERROR)
  list(APPEND cuda_options -Werror=all-warnings -Xcompiler=-Werror)
endif()
foreach(arch ${STRATA_CUDA_ARCHS})
  if(arch MATCHES "^([0-9]+a?)-ptx$")
    list(APPEND cuda_options -gencode=arch=compute_${CMAKE_MATCH_1},code=compute_${CMAKE_MATCH_1})
  else()
    list(APPEND cuda_options -gencode=arch=compute_${arch},code=sm_${arch})
  endif()
endforeach()
target_compile_options(strata_flags INTERFACE "$<$<COMPILE_LANGUAGE:CUDA>:${cuda_options}>")
