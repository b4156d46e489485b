"""The model's side: files, tokenizer, blocks, sampling. The only package that imports torch.

`source` finds a model's files, `loader` reads the tensors of some layers, `block` runs them for
many sessions at once, `check` proves that a family splits exactly, `memory` counts bytes before
anything is loaded. Tensors enter and leave as `types.Tensor` through `tensor`.
"""
