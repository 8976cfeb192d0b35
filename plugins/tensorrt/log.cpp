#include "log.h"

#include <atomic>
#include <cstdio>

namespace dvmsr::trt {
namespace {

std::atomic<nvinfer1::ILoggerFinder *> logger_finder{nullptr};

nvinfer1::ILogger *logger() {
  nvinfer1::ILoggerFinder *finder = logger_finder.load();
  return finder ? finder->findLogger() : nullptr;
}

}  // namespace

void set_logger_finder(nvinfer1::ILoggerFinder *finder) noexcept { logger_finder.store(finder); }

void log_error(const std::string &message) noexcept {
  try {
    if (nvinfer1::ILogger *found = logger()) {
      found->log(nvinfer1::ILogger::Severity::kERROR, message.c_str());
      return;
    }
  } catch (...) {  // findLogger() may throw
  }
  std::fprintf(stderr, "%s\n", message.c_str());
}

}  // namespace dvmsr::trt
