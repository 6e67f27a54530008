"""Where photos come from: Kaggle, the samples of scikit-image, or a folder; and photos to show."""

import tarfile
from pathlib import Path

import cv2
import numpy as np
import skimage
import torch

from helpers import workspace
from helpers.config import Config
from helpers.data.photos import center_square, list_photos, read_rgb

KAGGLE_HANDLE = "aayush9753/image-colorization-dataset/versions/1"
SAMPLES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "hubble_deep_field.jpg")
SAMPLES += ("camera.png", "moon.png")  # these two are gray: a rule drops them


def download_kaggle() -> Path:
    """Return the folder of the 5,000 color photos of Kaggle's "Image Colorization Dataset", downloaded if need be.

    Raises RuntimeError, with the other choices, when Kaggle cannot be reached.
    """
    import kagglehub  # asks for its credentials when imported: only who wants Kaggle pays for that

    # older kagglehubs unpack whatever an archive says, wherever it says: this keeps it within its folder
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        folder = Path(kagglehub.dataset_download(KAGGLE_HANDLE))
    except Exception as error:  # kagglehub has an error of its own for every way to fail
        raise RuntimeError(
            f"Kaggle's photos cannot be downloaded ({type(error).__name__}: {error}). Connect to the network, or use "
            'data_source="folder" with photos_folder="your/photos", or data_source="sample".'
        ) from error
    photos = folder / "data" / "train_color"
    if not photos.is_dir():
        raise RuntimeError(
            f"{folder} holds no data/train_color: half a download. Delete that folder, and run this again."
        )
    return photos


def sample_photos() -> Path:
    """Return a folder with the photos that scikit-image ships, each cut into four quarters in a folder of its own."""
    folder, shipped = workspace.local("scikit-image"), Path(skimage.__file__).parent / "data"
    for name in SAMPLES:
        for i, half in enumerate(np.array_split(cv2.imread(str(shipped / name)), 2)):
            for j, quarter in enumerate(np.array_split(half, 2, axis=1)):
                target = folder / Path(name).stem / f"{i}{j}.png"
                target.parent.mkdir(exist_ok=True)
                if not target.exists():
                    cv2.imwrite(str(target), quarter)
    return folder


def find_photos(cfg: Config) -> tuple[Path, list[Path]]:
    """Return the folder that `cfg.data_source` stands for and its photo files, sorted.

    Raises FileNotFoundError for a missing or empty folder, RuntimeError when Kaggle cannot be reached.
    """
    if cfg.data_source == "folder" and not cfg.photos_folder:
        raise FileNotFoundError('data_source="folder" needs photos_folder="the/folder/with/your/photos".')
    sources = {"kaggle": download_kaggle, "sample": sample_photos, "folder": lambda: Path(cfg.photos_folder)}
    folder = sources[cfg.data_source]().expanduser()
    return folder, list_photos(folder)


def show_photos(folder: str, limit: int = 24) -> list[Path]:
    """Return the first photos of a folder that can be read, or without one those of scikit-image's that have color.

    What cannot be read is printed. Raises FileNotFoundError when there is nothing that can be read.
    """
    if not folder:
        return [Path(skimage.__file__).parent / "data" / name for name in SAMPLES[:5]]
    readable = []
    for path in list_photos(Path(folder).expanduser()):
        try:
            read_rgb(path)
            readable.append(path)
        except OSError as error:
            print(f"passed over: {error}")
        if len(readable) == limit:
            break
    if not readable:
        raise FileNotFoundError(f"None of the photos in {folder} can be read: name another folder.")
    return readable


def load_squares(folder: str, size: int, limit: int = 8) -> torch.Tensor:
    """Return the first photos of a folder, or without one scikit-image's color ones, as uint8 (N, 3, size, size).

    Raises FileNotFoundError as `show_photos` does.
    """
    squares = [center_square(read_rgb(path), size) for path in show_photos(folder, limit)]
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)
