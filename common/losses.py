"""The contrastive loss between the two formats of a clip, on one process or several."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.nn.functional import all_gather


def info_nce(a: Tensor, b: Tensor, temperature: Tensor | float = 0.2) -> Tensor:
    """Symmetric InfoNCE: each clip in one format has to find itself among all clips in the other format.

    With ``s[i, j]`` the cosine similarity of ``a[i]`` and ``b[j]`` divided by the temperature, the mean over i of
    ``-log softmax(s[i, :])[i]`` and ``-log softmax(s[:, i])[i]``, averaged. Swapping ``a`` and ``b`` changes nothing.

    The temperature is fixed: when learned it fell to 0.04, focused on the hardest negatives and hurt the digit probe.

    Shape:
        a, b: [B, D], one row per clip, in the same order. Returns a scalar, in nats; log(B) at chance.

    Raises:
        ValueError: ``a`` and ``b`` differ in shape or are not matrices.

    Source:
        van den Oord et al., "Representation Learning with Contrastive Predictive Coding", arXiv:1807.03748; in this
        symmetric form Radford et al., arXiv:2103.00020.
    """
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(f"expected two [B, D] tensors of one shape, got {tuple(a.shape)} and {tuple(b.shape)}")
    similarity = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / temperature  # [B, B]
    own = torch.arange(len(a), device=a.device)
    return (F.cross_entropy(similarity, own) + F.cross_entropy(similarity.T, own)) / 2


def gather(z: Tensor) -> Tensor:
    """The rows of all processes, with gradients: [B, D] -> [processes * B, D]; ``z`` itself where there is one process.

    Every clip then has the clips of all processes as negatives. Each process computes the whole loss, gradients flow
    back to the process that the rows came from, and averaging them (as DDP does) gives those of one process with all
    rows.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return z
    return torch.cat(all_gather(z))
