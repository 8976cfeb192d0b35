// Where the plugin's errors go: to TensorRT's logger, or to stderr where that is out of reach.
#pragma once

#include <string>

#include "NvInferRuntime.h"

namespace dvmsr::trt {

// `finder` must outlive the plugins and come from a TensorRT of the major version compiled for.
void set_logger_finder(nvinfer1::ILoggerFinder *finder) noexcept;

// Must be called on the thread on which TensorRT called the plugin.
void log_error(const std::string &message) noexcept;

}  // namespace dvmsr::trt
