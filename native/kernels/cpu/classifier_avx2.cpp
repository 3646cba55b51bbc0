#include "kernels/cpu/classifier_isa.inl"
