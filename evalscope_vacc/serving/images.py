"""Container images, and which vLLM is inside: what a server accepts on its command line depends on that."""

from __future__ import annotations

import re

from evalscope_vacc.errors import ConfigError

VACC_IMAGE = "harbor.vastaitech.com/ai_deliver/vllm_vacc"
VACC_TAG = "VVI-26.02"
VACC_NEWER = "https://github.com/Vastai/VastModelZOO (its README, under 依赖软件)"
VLLM_IMAGE = "vllm/vllm-openai"
VLLM_TAG = "v0.32.0"
VLLM_NEWER = "https://hub.docker.com/r/vllm/vllm-openai/tags"

Version = tuple[int, int]

#: Up to this one ``vllm serve`` has to be told ``--task``; the next one infers it or takes ``--runner``.
LAST_WITH_TASK: Version = (0, 10)

# The vendor's guide passes --task to every image before this release and to none from it on.
_FIRST_VACC_WITHOUT_TASK = (26, 2)
_VACC_OLD: Version = (0, 9)
_VACC_NEW: Version = (0, 17)

_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_VACC_RELEASE = re.compile(r"VVI-(\d{2})\.(\d{1,2})(?!\d)", re.ASCII)
_VERSION = re.compile(r"v?(\d{1,3})\.(\d{1,3})(?:[.+-].*)?", re.ASCII)


def check_tag(tag: str) -> str:
    """Returns ``tag``, or raises ConfigError where docker could not take it."""
    if not _TAG.fullmatch(tag):
        raise ConfigError(f"{tag!r} is not an image tag: letters, digits, '_', '.' and '-', at most 128 of them")
    return tag


def parse_version(text: str) -> Version:
    """Returns major and minor of a vLLM version such as ``0.10.1``, ``v0.9.2`` or ``0.11``.

    Raises:
        ConfigError: It does not look like one.
    """
    found = _VERSION.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"{text!r} is not a vLLM version; write it like 0.10.1")
    return int(found[1]), int(found[2])


def vacc_version(tag: str) -> Version | None:
    """Returns the vLLM line inside the accelerator vendor's image ``tag``, or None where the tag does not say."""
    found = _VACC_RELEASE.match(tag)
    if found is None:
        return None
    return _VACC_OLD if (int(found[1]), int(found[2])) < _FIRST_VACC_WITHOUT_TASK else _VACC_NEW


def vllm_version(tag: str) -> Version | None:
    """Returns the vLLM version inside the official image ``tag``, or None for ``latest``, ``nightly`` and the like."""
    found = _VERSION.fullmatch(tag)
    return None if found is None else (int(found[1]), int(found[2]))
