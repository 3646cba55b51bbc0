#include "kernels/cpu/gemm_isa.inl"
