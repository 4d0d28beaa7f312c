"""The data sets that can be fetched: official addresses, sizes, licence, whom to cite, and what to do with them next.

Addresses and sizes are those of the publishers. sha256 of Speech Commands: as torchaudio 2.11 has it
(torchaudio.datasets.speechcommands). GitHub promises no bytes of its archives, so ESC-50 is held by its commit: what it
names is checked file by file (published.py). Zenodo tells size and MD5 of each file of a record.
"""

from collections.abc import Iterator
from dataclasses import dataclass

ZENODO = "https://zenodo.org"
GITHUB, GITHUB_API = "https://github.com", "https://api.github.com"
ESC50_COMMIT = "33c8ce9eb2cf0b1c2f8bcf322eb349b6be34dbb6"


@dataclass(frozen=True)
class Archive:
    """parts: what is downloaded, in order: (name, address); several are one zip in parts. digest: `sha256:...`."""

    parts: tuple[tuple[str, str], ...]
    digest: str | None = None


@dataclass(frozen=True)
class Dataset:
    """download, unpacked: bytes, about; recordings: how many are published; folder: its name below DEST.

    strip: whether the archive's one folder on top is left out. record: address of Zenodo's record, tree: of git's list
    of files; whichever the publisher offers. pack: what follows DEST in `make_shards pack`; next: the recipes.
    """

    title: str
    about: str
    folder: str
    archives: tuple[Archive, ...]
    download: int
    unpacked: int
    recordings: int
    licence: str
    cite: str
    page: str
    pack: str
    recipe: str
    needs: tuple[str, ...]
    strip: bool = True
    record: str | None = None
    tree: str | None = None

    def parts(self) -> Iterator[tuple[str, str, str | None]]:
        """(name, address, digest) of every file to download."""
        for archive in self.archives:
            for name, address in archive.parts:
                yield name, address, archive.digest if len(archive.parts) == 1 else None


def _zenodo(record: int, *names: str) -> Archive:
    return Archive(tuple((name, f"{ZENODO}/records/{record}/files/{name}?download=1") for name in names))


_ESC50 = Archive((("ESC-50.zip", f"{GITHUB}/karolpiczak/ESC-50/archive/{ESC50_COMMIT}.zip"),))
_ESC50_TREE = f"{GITHUB_API}/repos/karolpiczak/ESC-50/git/trees/{ESC50_COMMIT}?recursive=1"
_SPEECH = "https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.02.tar.gz"
_ESC_CITE = "K. J. Piczak. ESC: Dataset for Environmental Sound Classification. ACM Multimedia 2015, 1015-1018."
_FSD50K = (
    ("FSD50K.ground_truth.zip",),
    ("FSD50K.metadata.zip",),
    ("FSD50K.doc.zip",),
    ("FSD50K.eval_audio.z01", "FSD50K.eval_audio.zip"),
    (*(f"FSD50K.dev_audio.z{number:02d}" for number in range(1, 6)), "FSD50K.dev_audio.zip"),
)

ESC50 = Dataset(
    title="ESC-50",
    about="2000 environmental recordings of 5 s, 50 classes, 5 folds; ESC-10 is a part of it",
    folder="ESC-50",
    archives=(_ESC50,),
    download=645_832_161,
    unpacked=900_000_000,
    recordings=2000,
    licence="CC BY-NC 3.0: not for commercial use; the clips of ESC-10 are CC BY 3.0",
    cite=_ESC_CITE,
    page=f"{GITHUB}/karolpiczak/ESC-50",
    pack="shards/esc50",
    recipe="configs/esc50.yaml",
    needs=("meta/esc50.csv", "audio"),
    tree=_ESC50_TREE,
)

ESC10 = Dataset(
    **{
        **ESC50.__dict__,
        "title": "ESC-10",
        "about": "400 environmental recordings of 5 s, 10 classes, 5 folds: a part of ESC-50, which is fetched whole",
        "pack": "shards/esc10 --where esc10=True",
        "recipe": "configs/esc10.yaml",
    }
)

SPEECHCOMMANDS = Dataset(
    title="Speech Commands v2",
    about="105829 spoken words of 1 s, 35 classes, official lists of validation and test",
    folder="speech_commands_v0.02",
    archives=(
        Archive(
            (("speech_commands_v0.02.tar.gz", _SPEECH),),
            "sha256:af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
        ),
    ),
    download=2_428_923_189,
    unpacked=3_900_000_000,
    recordings=105_835,
    licence="CC BY 4.0",
    cite="P. Warden. Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition. arXiv:1804.03209, 2018.",
    page="https://arxiv.org/abs/1804.03209",
    pack="shards/speechcommands",
    recipe="configs/speechcommands.yaml",
    needs=("validation_list.txt", "testing_list.txt"),
    strip=False,
)

URBANSOUND8K = Dataset(
    title="UrbanSound8K",
    about="8732 city sounds of up to 4 s, 10 classes, 10 folds",
    folder="UrbanSound8K",
    archives=(_zenodo(1203745, "UrbanSound8K.tar.gz"),),
    download=6_023_741_708,
    unpacked=7_100_000_000,
    recordings=8732,
    licence="CC BY-NC 3.0, as its README says: not for commercial use",
    cite="J. Salamon, C. Jacoby, J. P. Bello. A Dataset and Taxonomy for Urban Sound Research. ACM Multimedia 2014.",
    page=f"{ZENODO}/records/1203745",
    pack="shards/urbansound8k",
    recipe="configs/urbansound8k.yaml",
    needs=("metadata/UrbanSound8K.csv", "audio/fold10"),
    record=f"{ZENODO}/api/records/1203745",
)

FSD50K = Dataset(
    title="FSD50K",
    about="51197 recordings of Freesound, 200 classes, several a clip, dev and eval sets",
    folder="FSD50K",
    archives=tuple(_zenodo(4060432, *names) for names in _FSD50K),
    download=24_700_000_000,
    unpacked=34_600_000_000,
    recordings=51_197,
    licence="CC BY 4.0 as a whole; each clip has its own (CC0, BY, BY-NC, Sampling+), named in FSD50K.metadata/",
    cite="E. Fonseca, X. Favory, J. Pons, F. Font, X. Serra. FSD50K: an Open Dataset of Human-Labeled Sound Events. "
    "IEEE/ACM TASLP 30, 829-852, 2022.",
    page=f"{ZENODO}/records/4060432",
    pack="shards/fsd50k",
    recipe="configs/fsd50k.yaml",
    needs=("FSD50K.ground_truth/vocabulary.csv", "FSD50K.dev_audio", "FSD50K.eval_audio"),
    strip=False,
    record=f"{ZENODO}/api/records/4060432",
)

DATASETS = {
    "esc10": ESC10,
    "esc50": ESC50,
    "speechcommands": SPEECHCOMMANDS,
    "urbansound8k": URBANSOUND8K,
    "fsd50k": FSD50K,
}
"""Name of the command -> data set."""
