# Compiler settings and the two target helpers of the project.

find_program(STRATA_CCACHE ccache)
if(STRATA_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${STRATA_CCACHE})
endif()
find_program(STRATA_MOLD mold)

add_library(strata_flags INTERFACE)
target_include_directories(strata_flags INTERFACE ${CMAKE_SOURCE_DIR}/src)
# Contraction off: whether a*b+c is fused must not depend on the compiler's mood; kernels that want
# a fused multiply-add say so.
target_compile_options(strata_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -ffp-contract=off -fno-omit-frame-pointer>)
if(STRATA_WERROR)
  target_compile_options(strata_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
endif()
if(STRATA_SANITIZE)
  list(JOIN STRATA_SANITIZE "," sanitizers)
  target_compile_options(strata_flags INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${sanitizers} -fno-sanitize-recover=all -g1>)
  target_link_options(strata_flags INTERFACE -fsanitize=${sanitizers})
  if(STRATA_SANITIZE MATCHES "thread" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(strata_flags INTERFACE -Wno-tsan)  # Asio's fences, which it cannot see
  endif()
elseif(STRATA_MOLD)
  target_link_options(strata_flags INTERFACE -fuse-ld=mold)
endif()
if(STRATA_FUZZ)
  target_compile_options(strata_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# The instruction set a kernel file is written for is the end of its name.
set(STRATA_ISA_avx2 -mavx2 -mfma -mf16c)
set(STRATA_ISA_avxvnni ${STRATA_ISA_avx2} -mavxvnni)
set(STRATA_ISA_avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c)
set(STRATA_ISA_avx512vnni ${STRATA_ISA_avx512} -mavx512vnni)

# strata_library(NAME [SUBDIRS dir...] PUBLIC deps... PRIVATE deps...)
# Library strata_NAME of src/NAME/*.cc and the SUBDIRS' *.cc and *.cu; header-only folders become
# interface libraries.
function(strata_library name)
  cmake_parse_arguments(ARG "" "" "SUBDIRS;PUBLIC;PRIVATE" ${ARGN})
  set(root ${CMAKE_SOURCE_DIR}/src/${name})
  file(GLOB sources CONFIGURE_DEPENDS ${root}/*.cc)
  foreach(sub ${ARG_SUBDIRS})
    file(GLOB more CONFIGURE_DEPENDS ${root}/${sub}/*.cc ${root}/${sub}/*.cu)
    list(APPEND sources ${more})
  endforeach()
  if(sources)
    foreach(isa avx2 avxvnni avx512 avx512vnni)
      foreach(source ${sources})
        if(source MATCHES "_${isa}\\.cc$")
          set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${STRATA_ISA_${isa}}")
        endif()
      endforeach()
    endforeach()
    add_library(strata_${name} STATIC ${sources})
    target_link_libraries(strata_${name} PUBLIC strata_flags ${ARG_PUBLIC} PRIVATE ${ARG_PRIVATE})
  else()
    add_library(strata_${name} INTERFACE)
    target_link_libraries(strata_${name} INTERFACE strata_flags ${ARG_PUBLIC} ${ARG_PRIVATE})
  endif()
endfunction()

# strata_test(DIR deps...): one gtest binary test_<dir> of tests/DIR/*.cc, run by ctest.
function(strata_test dir)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/${dir}/*.cc)
  if(NOT sources)
    return()
  endif()
  string(REPLACE "/" "_" name ${dir})
  string(REGEX REPLACE "^unit_" "" name ${name})
  add_executable(test_${name} ${sources})
  target_include_directories(test_${name} PRIVATE ${CMAKE_SOURCE_DIR})
  target_compile_definitions(test_${name} PRIVATE STRATA_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  target_link_libraries(test_${name} PRIVATE ${ARGN} GTest::gmock GTest::gtest_main)
  add_test(NAME ${name} COMMAND test_${name})
endfunction()
