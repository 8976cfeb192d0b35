# The headers of TensorRT 10.14, as a wheel from the package index carries them, into a folder; to be included, or
#
#   cmake -Dpython=python3 -Dfolder=build -P plugins/tensorrt/fetch_headers.cmake
#
# Nothing of it is run, and nothing unpacked unless it is the wheel that is known.
set(wheel kernel_lens-2.0.1-py3-none-any.whl)
set(wheel_sha256 07cc714e8b5e7f34b672f7c7fad93febe7c747be5837ba276b1527370134ffe0)
set(wheel_headers ${folder}/kernel_lens/include/tensorrt)
if(NOT EXISTS ${wheel_headers}/NvInferRuntime.h)
  execute_process(COMMAND ${python} -m pip download -q --no-deps --only-binary :all: kernel-lens==2.0.1
                  WORKING_DIRECTORY ${folder})
  if(EXISTS ${folder}/${wheel})
    file(SHA256 ${folder}/${wheel} found_sha256)
    if(NOT found_sha256 STREQUAL wheel_sha256)
      message(FATAL_ERROR "${wheel} has an unknown SHA-256: ${found_sha256}, not ${wheel_sha256}")
    endif()
    execute_process(COMMAND ${CMAKE_COMMAND} -E tar xf ${wheel} WORKING_DIRECTORY ${folder})
  endif()
endif()
