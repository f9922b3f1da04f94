/* {{label}}: the area of a disc by Monte Carlo. Put your own model in its place. */

#define FORGEPOOL_IMPLEMENTATION
#include "forgepool.h"

/* One unit: as many samples as its slice says, from the unit's own generator, and nothing else. */
forge_result forge_execute(const forge_task *task) {
    double radius;
    if (!forge_number(task, "radius", &radius)) return forge_fail(FORGE_FAIL_ARGUMENTS, "radius is a number");
    if (task->slice != FORGE_ITEMS) return forge_fail(FORGE_FAIL_OTHER, "the slice is not a run of items");

    forge_generator random = forge_seeded(task);
    forge_moments area = { 0 };
    for (uint64_t item = 0; item < task->items.count; item++) {
        /* The height of the circle over a uniform point, times four quarters. */
        double u = forge_next_open(&random);
        forge_moments_add(&area, 4.0 * radius * radius * __builtin_sqrt(1.0 - u * u));
    }

    static forge_part parts[1];
    parts[0] = forge_moments_part("area", area);
    return forge_ok(parts, 1);
}
