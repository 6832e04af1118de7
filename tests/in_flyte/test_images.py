"""Images with all that a mount needs: their Dockerfiles, made without Docker."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import re
import subprocess

import flyte
import pytest
from flyte._internal.imagebuild.docker_builder import _process_layer
from flytekit import ImageSpec
from flytekit.image_spec.default_builder import create_docker_context

from volume_core import VolumeError
from volume_flyte import with_high_throughput_volume_deps, with_volume_deps
from volume_flyte.images import _ALLOW_OTHER

VERSION = importlib.metadata.version("volume-core")
BOTH = [ImageSpec(name="train", registry="registry"), flyte.Image.from_debian_base(name="train", registry="registry")]
both = pytest.mark.parametrize("image", BOTH, ids=["flytekit", "flyte"])


def dockerfile(image, directory) -> str:
    """The Dockerfile of either SDK, and what pip is given, as one text."""
    if isinstance(image, ImageSpec):
        create_docker_context(image, directory)
        return (directory / "Dockerfile").read_text() + (directory / "requirements_uv.txt").read_text()
    made = ""
    for layer in image._layers:
        made = asyncio.run(_process_layer(layer, directory, made))
    return made + "".join(each.read_text() for each in directory.rglob("requirements*.txt"))


@both
def test_an_image_gets_the_programs_and_the_package(image, tmp_path):
    made = with_volume_deps(image)
    text = dockerfile(made, tmp_path)
    extra = "flyte" if isinstance(image, ImageSpec) else "flyte2"

    assert re.search(r"apt-get install[^&]*\bfuse3 fuse-overlayfs\b", text)
    assert _ALLOW_OTHER in text
    assert f"volume-core[{extra},kubernetes]=={VERSION}" in text
    assert "VOLUME_" not in text
    assert {extra, "kubernetes"} <= set(importlib.metadata.metadata("volume-core").get_all("Provides-Extra"))


def test_flytekit_sets_it_up_as_root_before_it_becomes_another_user(tmp_path):
    text = dockerfile(with_volume_deps(BOTH[0]), tmp_path)

    assert text.index("USER root") < text.index("fuse3") < text.index(_ALLOW_OTHER) < text.index("USER flytekit")


@both
def test_what_an_image_has_already_is_not_added_again_and_what_was_given_is_not_changed(image):
    once = with_high_throughput_volume_deps(image)

    assert once == with_high_throughput_volume_deps(once) == with_volume_deps(once)
    assert once != image
    assert with_high_throughput_volume_deps(image) == once


@both
def test_fast_or_not_at_all_is_two_settings(image, tmp_path):
    text = dockerfile(with_high_throughput_volume_deps(image, cache_limit="300G"), tmp_path)

    assert "VOLUME_DRIVER=kernel" in text.replace('"', "")
    assert "VOLUME_CACHE_LIMIT=300G" in text.replace('"', "")


def test_what_the_image_says_itself_stays():
    image = ImageSpec(
        name="x", env={"VOLUME_DRIVER": "copy", "A": "b"}, apt_packages=["git", "fuse3"], packages=["torch"],
        commands=["true"],
    )  # fmt: skip
    made = with_high_throughput_volume_deps(image)
    theirs = with_high_throughput_volume_deps(BOTH[1].with_env_vars({"VOLUME_DRIVER": "copy"}))
    said = [pair for layer in theirs._layers for pair in getattr(layer, "env_vars", ()) if pair[0] == "VOLUME_DRIVER"]

    assert {"VOLUME_DRIVER": "copy", "A": "b", "VOLUME_CACHE_LIMIT": "100G"} == made.env
    assert ["git", "fuse3", "fuse-overlayfs"] == made.apt_packages
    assert "torch" == made.packages[0]
    assert "true" == made.commands[0]
    assert [("VOLUME_DRIVER", "copy")] == said


@both
@pytest.mark.parametrize("package", ["volume-core[flyte] @ https://host/volume_core.whl", None])
def test_another_package_may_be_installed_or_none(image, package, tmp_path):
    text = dockerfile(with_volume_deps(image, package=package), tmp_path)

    assert (package in text) if package else ("volume-core" not in text)


def test_flytekit_adds_nothing_to_a_lock_file(tmp_path):
    (tmp_path / "uv.lock").write_text("")
    image = ImageSpec(name="x", requirements=str(tmp_path / "uv.lock"))

    with pytest.raises(VolumeError, match=r"those of uv\.lock, to which flytekit adds none: have volume-core\[flyte,"):
        with_volume_deps(image)
    assert ["fuse3", "fuse-overlayfs"] == with_volume_deps(image, package=None).apt_packages


@pytest.mark.parametrize("image", ["ghcr.io/team/image:1", None, object()])
def test_what_is_no_image_is_refused(image):
    with pytest.raises(VolumeError, match=r"give an ImageSpec of flytekit, or a flyte\.Image"):
        with_volume_deps(image)


@pytest.mark.skipif(os.geteuid() != 0, reason="puts a file in the place of /etc/fuse.conf, where nobody sees it")
def test_users_who_are_not_root_may_show_their_mounts_to_others_once_the_command_has_run(tmp_path):
    conf = tmp_path / "fuse.conf"
    conf.write_text("# as Debian has it\n#user_allow_other\n")
    script = 'mount --bind "$1" /etc/fuse.conf && sh -c "$2" && sh -c "$2"'
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(conf), _ALLOW_OTHER]
    subprocess.run(command, check=True)

    assert "# as Debian has it\n#user_allow_other\nuser_allow_other\n" == conf.read_text()
