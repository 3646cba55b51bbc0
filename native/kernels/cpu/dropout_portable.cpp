#include "kernels/cpu/dropout_isa.inl"
