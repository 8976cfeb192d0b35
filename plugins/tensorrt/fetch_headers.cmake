# TensorRT's headers into a folder, named by `fetched_headers` afterwards; to be included, or
#
#   cmake -Dmajor=10 -Dpython=python3 -Dfolder=build -P plugins/tensorrt/fetch_headers.cmake
#
# Of TensorRT 10 those of 10.14, as a wheel from the package index carries them; of TensorRT 11 those of 11.1, from
# NVIDIA's public repository. Nothing of them is run, and nothing is used unless it is the file that is known.
if(major EQUAL 11)
  set(fetched_headers ${folder}/tensorrt-11.1)
  set(release 82d1dca801c8318a5605399d5240780d0679e4e1)
  set(tensorrt_repository https://raw.githubusercontent.com/NVIDIA/TensorRT/${release} CACHE STRING "where include/ lies")
  set(known
  NvInferImpl.h c6acddec7e286c18e9cd08511553c2015f99c487ca25717790e54e30c18ade79
  NvInferLegacyDims.h 3e10fe5b85545f2e956e6935271badf0b1c72553b698000a61d46d69c5d53030
  NvInferPluginBase.h 759f354754e64bf4d1e68d7df796c155c46f8a27541bf1912ba13e79a5a26fc2
  NvInferRuntime.h e78c2d49516a66f726864904386534f63eacf0ad75a6dfdde7dfa70adf39f797
  NvInferRuntimeBase.h ec38759dbf8a5538c4cd30890f1764658bc2dcec87e95ac18148e476cbe1671b
  NvInferRuntimeCommon.h eff4c0251cb4813bbc7fe34c6b28fdb6c08734c27ae53b07974d2557bf1431be
  NvInferRuntimePlugin.h d4db4236da9c03e543949247a75478b5ce68fc84eb30cd15b35081b94c8d8391
  NvInferVersion.h 8648df4851fb2df1a15d7dfdae6454428c4b119055f65f6a98de8ff806977b2e)
  message(STATUS "downloading the headers of TensorRT 11.1 from NVIDIA's public repository TensorRT")
  while(known)
    list(POP_FRONT known name known_sha256)
    file(DOWNLOAD ${tensorrt_repository}/include/${name} ${fetched_headers}/${name} STATUS status INACTIVITY_TIMEOUT 30)
    list(GET status 0 failed)
    if(failed)
      file(REMOVE_RECURSE ${fetched_headers})
      break()
    endif()
    file(SHA256 ${fetched_headers}/${name} found_sha256)
    if(NOT found_sha256 STREQUAL known_sha256)
      file(REMOVE_RECURSE ${fetched_headers})
      message(FATAL_ERROR "${name} has an unknown SHA-256: ${found_sha256}, not ${known_sha256}")
    endif()
  endwhile()
else()
  set(fetched_headers ${folder}/kernel_lens/include/tensorrt)
  set(wheel kernel_lens-2.0.1-py3-none-any.whl)
  set(wheel_sha256 07cc714e8b5e7f34b672f7c7fad93febe7c747be5837ba276b1527370134ffe0)
  if(NOT EXISTS ${fetched_headers}/NvInferRuntime.h)
    message(STATUS "downloading the headers of TensorRT 10.14 from the package index")
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
endif()
