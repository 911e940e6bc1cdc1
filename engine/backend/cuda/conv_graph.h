/* One convolution as a graph of cuDNN's backend API, made ready to run. Inside of conv.c. */
#ifndef BACKEND_CUDA_CONV_GRAPH_H
#define BACKEND_CUDA_CONV_GRAPH_H

#include <cudnn.h>

#include "backend/cuda/conv.h"

#define CONV_GRAPH_MAX_DESCRIPTORS 24
#define CONV_GRAPH_MAX_ENGINES 16 /* that the heuristic names */
#define CONV_GRAPH_MAX_PLANS 5    /* that are made ready */

/* Owner: whoever called init. Zeroed, it holds nothing. */
struct conv_graph {
    bool is_fused, has_residual;
    cudnnBackendDescriptor_t descriptors[CONV_GRAPH_MAX_DESCRIPTORS];
    size_t n_descriptors;
    cudnnBackendDescriptor_t plans[CONV_GRAPH_MAX_PLANS]; /* best first, as the heuristic has it */
    size_t workspace_bytes[CONV_GRAPH_MAX_PLANS];
    size_t n_plans;
};

/* What a run reads and writes. bias: [O] in the picture's type, when the graph is fused. */
struct conv_graph_data {
    const void *x, *weight, *bias, *residual;
    void *y, *workspace;
};

/* is_fused: a bias, and the residual if there is one, are part of the graph; else it is the convolution alone.
 * false: the library has no engine that
 * computes it as it must be (fp32 sums, F32 without TF32, the same bits every time); then nothing is held. */
bool conv_graph_init(struct conv_graph *graph, cudnnHandle_t handle, const struct conv_args *args, bool is_fused);
void conv_graph_done(struct conv_graph *graph);
/* Only the plan of a number is needed from now on. */
void conv_graph_keep(struct conv_graph *graph, size_t plan);
bool conv_graph_run(const struct conv_graph *graph, cudnnHandle_t handle, size_t plan,
                    const struct conv_graph_data *data);

#endif
