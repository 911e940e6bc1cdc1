#!/usr/bin/env python3
"""Times the phases of diffusers on the processor in bf16, on a model folder, one part in memory at a time.

diffusers_phases.py MODEL [SIZE …]    sizes in pixels, default 256 512

Prints "encode", "step SIZE" and "decode SIZE" with seconds: the best of two after one that warms up.
"""
import gc
import sys
import time

import torch
from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel
from transformers import Qwen3ForCausalLM

N_TEXT = 512


def best_of(run, n=2):
    run()
    times = []
    for _ in range(n):
        start = time.monotonic()
        run()
        times.append(time.monotonic() - start)
    return min(times)


def report(name, seconds):
    print("%-12s %8.3f s" % (name, seconds), flush=True)


def time_encoder(model):
    encoder = Qwen3ForCausalLM.from_pretrained(model, subfolder="text_encoder", dtype=torch.bfloat16)
    ids = torch.randint(0, 1000, (1, N_TEXT))
    report("encode", best_of(lambda: encoder(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True,
                                             use_cache=False)))


def time_steps(model, sizes):
    transformer = Flux2Transformer2DModel.from_pretrained(model, subfolder="transformer", torch_dtype=torch.bfloat16)
    config = transformer.config
    for size in sizes:
        side = size // 16
        n = side * side
        latents = torch.randn(1, n, config.in_channels, dtype=torch.bfloat16)
        text = torch.randn(1, N_TEXT, config.joint_attention_dim, dtype=torch.bfloat16)
        image_ids = torch.zeros(1, n, 4)
        image_ids[0, :, 1] = torch.arange(n) // side
        image_ids[0, :, 2] = torch.arange(n) % side
        text_ids = torch.zeros(1, N_TEXT, 4)
        text_ids[0, :, 3] = torch.arange(N_TEXT)
        report("step %d" % size, best_of(lambda: transformer(
            hidden_states=latents, encoder_hidden_states=text, timestep=torch.ones(1), guidance=None, img_ids=image_ids,
            txt_ids=text_ids, return_dict=False)))


def time_decoder(model, sizes):
    vae = AutoencoderKLFlux2.from_pretrained(model, subfolder="vae", torch_dtype=torch.bfloat16)
    for size in sizes:
        latents = torch.randn(1, vae.config.latent_channels, size // 8, size // 8, dtype=torch.bfloat16)
        report("decode %d" % size, best_of(lambda: vae.decode(latents, return_dict=False)))


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sizes = [int(size) for size in sys.argv[2:]] or [256, 512]
    print("torch %s, %d threads" % (torch.__version__, torch.get_num_threads()))
    with torch.inference_mode():
        time_decoder(sys.argv[1], sizes)
        gc.collect()
        time_steps(sys.argv[1], sizes)
        gc.collect()
        time_encoder(sys.argv[1])


if __name__ == "__main__":
    main()
