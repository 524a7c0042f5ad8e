"""Memory of the loader as arrays of NumPy or tensors of PyTorch, without a copy."""

import numpy as np


class Numpy:
    """Arrays of NumPy."""

    lend = None

    @staticmethod
    def array(memory):
        return np.asarray(memory)

    @staticmethod
    def channels_first(images):
        return images.transpose(0, 3, 1, 2)


class Torch:
    """Tensors of PyTorch; images in pinned memory if `pinned`."""

    def __init__(self, pinned):
        import torch

        self._torch = torch
        self.lend = self._lend if pinned else None

    def _lend(self, size):
        """Memory for a batch. PyTorch keeps it for later, and gives it out again when no copy to a GPU reads it any more."""
        tensor = self._torch.empty(size, dtype=self._torch.uint8, pin_memory=True)
        return tensor, tensor.data_ptr()

    def array(self, memory):
        return self._torch.from_numpy(np.asarray(memory))

    @staticmethod
    def channels_first(images):
        return images.permute(0, 3, 1, 2)


def of(output, pin_memory):
    """What makes the arrays: `output` is "torch", "numpy" or `None`, which is PyTorch if it can be imported."""
    if output not in (None, "torch", "numpy"):
        raise ValueError(f"output is {output!r}; choose one of torch, numpy")
    if output is None:
        try:
            import torch  # noqa: F401
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            output = "numpy"
    if output == "numpy":
        if pin_memory:
            raise ValueError("only tensors of PyTorch have pinned memory")
        return Numpy()
    if pin_memory is None:
        import torch

        pin_memory = torch.cuda.is_available()
    return Torch(pin_memory)
