// STRATA_ON_BOTH marks functions that kernels and the host share.
#pragma once

#ifdef __CUDACC__
#define STRATA_ON_BOTH __host__ __device__
#else
#define STRATA_ON_BOTH
#endif
