// Which TensorRT runs this plugin, found without calling anything that differs between versions.
//
// ILogger, ILoggerFinder and IPluginRegistry have other virtual tables in TensorRT 11 than in 10, so a
// plugin must not touch those of another major version. The interfaces that a plugin implements and
// IExprBuilder are the same in 10, 11 and TensorRT for RTX, which counts its own versions from 1.
#pragma once

#include <string>
#include <vector>

#include "NvInferRuntime.h"

namespace dvmsr::trt {

struct Host {
  void *library;    // for dlsym
  int32_t version;  // 10000 * major + 100 * minor + patch (1000 * major before 10); 0: not TensorRT

  int32_t unit() const { return version < 10000 ? 1000 : 10000; }
  int32_t major() const { return version / unit(); }
  bool is_rtx() const { return major() == 1; }
  bool matches() const { return major() == NV_TENSORRT_MAJOR; }
};

// The TensorRT that a function at `address` belongs to or is linked against; version 0 if none.
Host host_at(const void *address);

// Every TensorRT in this process that has a plugin registry.
std::vector<Host> loaded_hosts();

// Why this plugin cannot serve `host`, with the remedy.
std::string mismatch(const Host &host);

}  // namespace dvmsr::trt
