/* examples/percolation: does water find a way through a random grid?
 *
 * Site percolation on a square lattice: each site of a `size` x `size` grid is open with probability `open`; a grid
 * spans where open sites, joined by their sides, lead from the top row to the bottom row. Near open = 0.592746 an
 * infinite grid changes from never to always. Source of the labelling: J. Hoshen, R. Kopelman, "Percolation and cluster
 * distribution", Phys. Rev. B 14, 1976, as a union of trees with path halving.
 */
#define FORGEPOOL_IMPLEMENTATION
#include "forgepool.h"

enum { SIZE_MAX_SITES = 512 };

/* Parent of each site of two rows of labels and of all clusters met: a site's own index where it is a root. */
typedef struct { uint32_t *parent, *sites; } forest;

static uint32_t root_of(forest *f, uint32_t site) {
    while (f->parent[site] != site) {
        f->parent[site] = f->parent[f->parent[site]];
        site = f->parent[site];
    }
    return site;
}

/* The larger tree takes the smaller. */
static void join(forest *f, uint32_t a, uint32_t b) {
    a = root_of(f, a);
    b = root_of(f, b);
    if (a == b) return;
    if (f->sites[a] < f->sites[b]) { uint32_t t = a; a = b; b = t; }
    f->parent[b] = a;
    f->sites[a] += f->sites[b];
}

/* One grid: whether it spans, and the sites of its largest cluster. A site draws one 32-bit word, row by row. */
static bool grid_spans(forge_generator *random, forest *f, uint32_t size, uint64_t threshold, uint32_t *largest) {
    const uint32_t closed = UINT32_MAX, sites = size * size, top = sites, bottom = sites + 1;
    for (uint32_t site = 0; site < sites; site++) {
        bool open = forge_next_u32(random) < threshold;
        f->parent[site] = open ? site : closed;
        f->sites[site] = 1;
    }
    *largest = 0;
    for (uint32_t site = 0; site < sites; site++) {
        if (f->parent[site] == closed) continue;
        if (site % size != 0 && f->parent[site - 1] != closed) join(f, site, site - 1);
        if (site >= size && f->parent[site - size] != closed) join(f, site, site - size);
    }
    for (uint32_t site = 0; site < sites; site++)
        if (f->parent[site] == site && f->sites[site] > *largest) *largest = f->sites[site];

    /* Two sites outside the grid: one above the top row, one below the bottom row. */
    f->parent[top] = top;
    f->parent[bottom] = bottom;
    f->sites[top] = f->sites[bottom] = 0;
    for (uint32_t column = 0; column < size; column++) {
        if (f->parent[column] != closed) join(f, top, column);
        if (f->parent[sites - 1 - column] != closed) join(f, bottom, sites - 1 - column);
    }
    return root_of(f, top) == root_of(f, bottom);
}

forge_result forge_execute(const forge_task *task) {
    double open;
    uint64_t size;
    if (!forge_number(task, "open", &open) || !(open >= 0.0 && open <= 1.0))
        return forge_fail(FORGE_FAIL_ARGUMENTS, "open is a probability");
    if (!forge_whole(task, "size", &size) || size < 1 || size > SIZE_MAX_SITES)
        return forge_fail(FORGE_FAIL_ARGUMENTS, "size is 1 to 512");
    if (task->slice != FORGE_ITEMS) return forge_fail(FORGE_FAIL_OTHER, "the slice is not a run of items");

    forge_generator random = forge_seeded(task);
    size_t sites = (size_t)(size * size);
    forest f = { forge_alloc((sites + 2) * 4, 4), forge_alloc((sites + 2) * 4, 4) };
    /* A word is below it with the probability asked for, to within 2^-32. */
    uint64_t threshold = (uint64_t)(open * 4294967296.0);
    forge_moments spans = { 0 }, largest = { 0 };
    for (uint64_t grid = 0; grid < task->items.count; grid++) {
        uint32_t cluster;
        bool through = grid_spans(&random, &f, (uint32_t)size, threshold, &cluster);
        forge_moments_add(&spans, through ? 1.0 : 0.0);
        forge_moments_add(&largest, (double)cluster / (double)sites);
    }

    static forge_part parts[2];
    parts[0] = forge_moments_part("spans", spans);
    parts[1] = forge_moments_part("largest", largest);
    return forge_ok(parts, 2);
}
