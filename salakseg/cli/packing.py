"""``salakseg pack``."""

from pathlib import Path
from typing import Annotated

import typer

from salakseg.cli.choices import PackCodec
from salakseg.cli.console import progress_bar, say
from salakseg.cli.patch_folder import ClassMapping, Root, patch_folder


def pack(
    root: Root = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the pack. Default: pack/ in the patches' folder.")] = None,
    codec: Annotated[
        PackCodec,
        typer.Option(help="raw: quickest, 4 bytes a pixel; webp: small, no loss; jpeg: smallest, quality 95."),
    ] = PackCodec.raw,
    class_mapping: ClassMapping = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a pack of other or older patches.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how large it would be, write nothing.")] = False,
) -> None:
    """Pack all patches into a few large files that training reads two to three times as fast.

    A pack that was interrupted goes on where it stopped; one that is there already is left alone.
    """
    from salakseg.data.pack import Codec, Pack
    from salakseg.data.packing import PACK, estimated_bytes, pack_patches
    from salakseg.data.patches import index_patches

    root, class_map = patch_folder(root, class_mapping)
    index = index_patches(root)
    kind = Codec(codec.value)
    about = f"{len(index.patches):,} patches, {index.labelled_count:,} with a mask, about"
    say(f"{about} {estimated_bytes(index, kind) / 1e9:.2f} GB as {kind}")
    if dry_run:
        return
    with progress_bar("packing", "patches") as bar:
        done = pack_patches(index, out or root / PACK, class_map, kind, overwrite=overwrite, progress=bar)
    if done.resumed == done.patches:
        say(f"{done.folder} is there already and up to date")
        return
    if damaged := Pack(done.folder).damaged:
        say(f"attention: {len(damaged)} could not be read and are left out, such as {damaged[0].name}")
    went_on = f", {done.resumed:,} of them by an earlier call" if done.resumed else ""
    say(f"{done.folder}: {done.patches:,} patches{went_on}, {done.bytes / 1e9:.2f} GB")
