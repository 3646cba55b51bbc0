// What is known of this machine's GPUs, for those who speak to the engine alone.
#pragma once

#include "kernels/cuda_devices.h"
