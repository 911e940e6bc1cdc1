/* system_info: what this machine offers a process: processor, cores, memory, libraries. Read from /proc and the control groups. */
#ifndef COMMON_SYSTEM_INFO_H
#define COMMON_SYSTEM_INFO_H

#include "text.h"

struct system_info {
    char processor[128]; /* as the system names it; "" when it does not */
    char features[256];  /* those of interest, "avx2 fma avx512f …" */
    bool is_x86, has_avx2, has_avx512_bf16, has_amx;
    int n_cores;              /* that are switched on */
    int n_allowed_cores;      /* by affinity */
    double quota_cores;       /* by control group; 0: no limit */
    uint64_t memory_bytes;    /* of the machine */
    uint64_t available_bytes; /* free or easily freed */
    uint64_t limit_bytes;     /* by control group; 0: no limit */
    uint64_t used_bytes;      /* of that limit, without file pages that can be dropped */
    char kernel[128];
};

void system_info_read(struct system_info *ret_info);

/* The shared libraries of interest that are loaded, with the versions in their file names: "libjansson 4.14.0, …". A new string. */
char *system_info_libraries(void);

/* The lowest limit of the control groups that this process is in, from its own up to root. file is the name in version 2
 * ("memory.max"); root is where version 2 is mounted. UINT64_MAX when none limits. For tests. */
uint64_t system_info_group_limit(const char *root, const char *group, const char *file);

#endif
