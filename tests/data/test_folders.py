"""Folders of files: what lies where decides split, label, mask, boxes and tags; nothing is decoded to find out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hubtune.data import sources
from hubtune.data.formats import lookup
from hubtune.errors import DataError


def put(folder: Path, *names: str, content: bytes = b"not really") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def write(folder: Path, name: str, text: str) -> None:
    put(folder, name, content=text.encode())


def found(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows by split, with paths as they are inside the folder."""
    def inside(value: Any) -> Any:
        here = f"{folder}/"
        return value.removeprefix(here) if isinstance(value, str) else value

    return {split: [{key: inside(value) for key, value in row.items()} for row in rows]
            for split, rows in sources.load(folder).splits.items()}


def refusal(source: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        sources.load(source)
    assert str(Path(source).parent) not in str(caught.value)
    return caught.value


# ------------------------------------------------------------------------------------------------------ by class


@pytest.mark.parametrize(("names", "expected"), [
    (["train/cat/a.png", "train/dog/b.jpg", "test/cat/c.JPEG"],
     {"train": [("train/cat/a.png", "cat"), ("train/dog/b.jpg", "dog")], "test": [("test/cat/c.JPEG", "cat")]}),
    (["cat/a.webp", "dog/b.bmp"], {"train": [("cat/a.webp", "cat"), ("dog/b.bmp", "dog")]}),
    (["all/val/cat/a.png", "all/training/dog/b.png"],
     {"validation": [("all/val/cat/a.png", "cat")], "train": [("all/training/dog/b.png", "dog")]}),
    (["bus/a.png", "train/b.png"], {"train": [("bus/a.png", "bus"), ("train/b.png", "train")]}),  # a class called train
    (["train/test tube/a.png", "train/jar/b.png"],
     {"train": [("train/jar/b.png", "jar"), ("train/test tube/a.png", "test tube")]}),
    (["train2017/cat/a.png"], {"train": [("train2017/cat/a.png", "cat")]}),
    (["a.png", "b.png"], {"train": [("a.png", None), ("b.png", None)]}),
])
def test_images_by_class(tmp_path: Path, names: list[str], expected: dict[str, Any]) -> None:
    put(tmp_path, *names, ".hidden/cat/x.png", "README.txt")
    assert {split: [(row["image"], row.get("label")) for row in rows] for split, rows in found(tmp_path).items()} == expected


def test_sounds_by_class_and_a_fingerprint_of_the_content(tmp_path: Path) -> None:
    put(tmp_path, "x/train/yes/a.wav", "x/train/no/b.flac", "y/train/yes/a.wav", "y/train/no/b.flac")
    assert found(tmp_path / "x") == {"train": [{"audio": "train/no/b.flac", "label": "no"},
                                               {"audio": "train/yes/a.wav", "label": "yes"}]}
    one, other = sources.load(tmp_path / "x"), sources.load(tmp_path / "y")
    assert (one.fingerprint, one.name) == (other.fingerprint, "x")
    put(tmp_path, "y/train/no/b.flac", content=b"changed")
    assert sources.load(tmp_path / "y").fingerprint != one.fingerprint


def test_one_image_is_a_row(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    assert list(sources.load(tmp_path / "a.png").splits["train"]) == [{"image": str(tmp_path / "a.png")}]


def test_files_outside_of_labels_and_of_several_kinds_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "x/train/cat/a.png", "x/train/stray.png", "y/a/a.png", "y/a/b.png", "y/b/c.wav")
    assert "1 of 2 files of train are outside of label folders: stray.png" in refusal(tmp_path / "x").message
    assert "several kinds" in refusal(tmp_path / "y").message
    assert "c.wav" in refusal(tmp_path / "y").message


# ------------------------------------------------------------------------------------------------------ metadata


def test_metadata_beside_the_files_and_over_the_splits(tmp_path: Path) -> None:
    put(tmp_path, "x/train/a.wav", "x/train/b.wav", "x/test/c.wav", "y/train/a.png", "y/test/b.png", "y/train/m.png")
    write(tmp_path, "x/train/metadata.csv", "file_name,transcription\na.wav,null\nb.wav,007\n")
    write(tmp_path, "x/test/metadata.csv", "file_name,transcription\nc.wav,three\n")
    assert found(tmp_path / "x") == {
        "test": [{"transcription": "three", "audio": "test/c.wav"}],
        "train": [{"transcription": "null", "audio": "train/a.wav"}, {"transcription": "007", "audio": "train/b.wav"}],
    }
    write(tmp_path, "y/metadata.jsonl", '{"file_name": "train/a.png", "text": "A", "mask_file_name": "train/m.png"}\n'
                                        '{"file_name": "test/b.png", "text": "B", "mask_file_name": "train/m.png"}\n')
    assert found(tmp_path / "y") == {
        "train": [{"text": "A", "image": "train/a.png", "mask": "train/m.png"}],
        "test": [{"text": "B", "image": "test/b.png", "mask": "train/m.png"}],
    }


def test_metadata_with_missing_files_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "train/a.png")
    write(tmp_path, "train/metadata.csv", "file_name,label\na.png,x\nb.png,y\n,z\n")
    error = refusal(tmp_path)
    assert "2 of 3 rows name a missing file: 'b.png' in rows 2, 3" in error.message
    assert error.where == "train/metadata.csv"
    assert "a.png" in str(error.hint)


def test_a_table_called_metadata_stays_a_table_and_tables_may_name_images(tmp_path: Path) -> None:
    write(tmp_path, "x/metadata.csv", "text,label\nhello,a\n")
    assert found(tmp_path / "x") == {"train": [{"text": "hello", "label": "a"}]}
    put(tmp_path, "pictures/a.png")
    write(tmp_path, "rows.csv", "image,label\npictures/a.png,cat\n")
    assert sources.load(tmp_path / "rows.csv").splits["train"][0]["image"] == str(tmp_path / "pictures/a.png")
    write(tmp_path, "z/train.csv", "image,label\npictures/a.png,cat\n")
    put(tmp_path, "z/pictures/a.png")
    assert found(tmp_path / "z") == {"train": [{"label": "cat", "image": "pictures/a.png"}]}


def test_lists_of_images_are_relative_to_the_table_too(tmp_path: Path) -> None:
    put(tmp_path, "pictures/a.png")
    write(tmp_path, "rows.jsonl", '{"images": ["pictures/a.png", "pictures/a.png"], "n": [1]}\n{"images": [], "n": [2]}\n')
    rows = sources.load(tmp_path / "rows.jsonl").splits["train"]
    assert rows[:]["images"] == [[str(tmp_path / "pictures/a.png")] * 2, []]
    assert rows[:]["n"] == [[1], [2]]


# ------------------------------------------------------------------------------------------------ images and masks


@pytest.mark.parametrize("names", [
    ["train/images/a.jpg", "train/masks/a.png", "test/images/b.png", "test/masks/b.png"],
    ["images/train/a.jpg", "annotations/train/a.png", "images/test/b.png", "annotations/test/b.png"],
    ["train/image/a.jpg", "train/labels/a_mask.png", "test/image/b.png", "test/labels/b_mask.png"],
])
def test_images_and_masks_meet_by_name(tmp_path: Path, names: list[str]) -> None:
    put(tmp_path, *names)
    rows = found(tmp_path)
    assert {split: (row[0]["image"], row[0]["mask"]) for split, row in rows.items()} == {
        "train": (names[0], names[1]), "test": (names[2], names[3])}


def test_a_mask_or_an_image_alone_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png", "images/b.png", "masks/a.png", "masks/b.png", "masks/c.png")
    assert "1 of 3 masks have no image: masks/c.png" in refusal(tmp_path).message
    put(tmp_path, "images/c.png", "images/d.png")
    assert "1 of 4 images have no mask: images/d.png" in refusal(tmp_path).message


# ---------------------------------------------------------------------------------------------------------- COCO


def document(**changes: Any) -> str:
    said = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 20, "height": 10}, {"id": 8, "file_name": "b.jpg"}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 3.5, 4], "area": 14},
                        {"id": 2, "image_id": 7, "category_id": 5, "bbox": [0, 0, 2, 2]},
                        {"id": 3, "image_id": 7, "category_id": 5, "bbox": [0, 0, 9, 9], "iscrowd": 1}],
        "categories": [{"id": 3, "name": "cell"}, {"id": 5, "name": "plate"}],
    }
    return json.dumps({**said, **changes})


@pytest.mark.parametrize(("names", "where"), [
    (["train/a.jpg", "train/b.jpg"], "train/_annotations.coco.json"),
    (["train2017/a.jpg", "train2017/b.jpg", "val2017/a.jpg"], "annotations/instances_train2017.json"),
    (["images/a.jpg", "images/b.jpg"], "annotations.json"),
])
def test_coco_documents(tmp_path: Path, names: list[str], where: str) -> None:
    put(tmp_path, *names)
    write(tmp_path, where, document())
    write(tmp_path, "train/metadata.jsonl", '{"file_name": "a.jpg", "objects": {"category": [0]}}\n')  # less is known
    rows = found(tmp_path)
    assert list(rows) == ["train"]
    assert rows["train"] == [
        {"image": names[0], "objects": {"id": [1, 2], "bbox": [[1, 2, 3.5, 4], [0, 0, 2, 2]],
                                        "category": ["cell", "plate"], "area": [14, 4]}},
        {"image": names[1], "objects": {"id": [], "bbox": [], "category": [], "area": []}},
    ]
    assert len(sources.load(tmp_path / where).splits["train"]) == 2


@pytest.mark.parametrize(("changes", "message"), [
    ({"categories": [{"id": 3, "name": "cell"}]}, "2 annotations name an unknown category: category_id 5 in annotation 2"),
    ({"images": [{"id": 8, "file_name": "b.jpg"}]}, "name an unknown image: image_id 7 in annotation 1"),
    ({"images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "c.jpg"}]},
     "1 of 2 images are missing, such as 'c.jpg': row 2 of train"),
])
def test_coco_documents_that_contradict_themselves(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    put(tmp_path, "train/a.jpg", "train/b.jpg")
    write(tmp_path, "train/_annotations.coco.json", document(**changes))
    assert message in refusal(tmp_path).message


# ------------------------------------------------------------------------------------------------------------ CoNLL


@pytest.mark.parametrize(("name", "text"), [
    ("train.conll", "-DOCSTART- -X- O\n\nParis NNP B-LOC\nis VBZ O\n\nJohn NNP B-PER\n"),
    ("train.bio", "# id = 1\nParis\tB-LOC\nis\tO\n\n\n# id = 2\nJohn\tB-PER\n\n"),
    ("train.txt", "Paris B-LOC\r\nis O\r\n\r\nJohn B-PER\r\n"),
    ("train.iob2", "Paris _ _ B-LOC\nis _ _ O\n\t\nJohn _ _ B-PER"),
])
def test_tagged_words(tmp_path: Path, name: str, text: str) -> None:
    write(tmp_path, name, text)
    write(tmp_path, name.replace("train", "dev"), text)
    expected = [{"tokens": ["Paris", "is"], "tags": ["B-LOC", "O"]}, {"tokens": ["John"], "tags": ["B-PER"]}]
    assert found(tmp_path) == {"train": expected, "validation": expected}
    assert list(sources.load(tmp_path / name).splits["train"]) == expected


def test_a_hash_may_be_a_word_and_a_text_stays_a_text(tmp_path: Path) -> None:
    write(tmp_path, "a.conll", "# O\nParis B-LOC\n# a comment here\n")
    assert list(sources.load(tmp_path / "a.conll").splits["train"]) == [{"tokens": ["#", "Paris"], "tags": ["O", "B-LOC"]}]
    write(tmp_path, "a.txt", "hello there\nand there\n")
    assert "unsupported file type. Supported: .csv, .tsv" in refusal(tmp_path / "a.txt").message


def test_lines_of_other_widths_are_refused_by_their_numbers(tmp_path: Path) -> None:
    write(tmp_path, "a.conll", "Paris B-LOC\nis O\nbroken\n")
    error = refusal(tmp_path / "a.conll")
    assert "line 3 has 1 columns instead of 2: 'broken'" in error.message
    assert error.where == "a.conll"
    write(tmp_path, "b.conll", "\n\n")
    assert "no rows" in refusal(tmp_path / "b.conll").message
    put(tmp_path, "c.conll", content="café O\n".encode("cp1252"))
    assert sources.load(tmp_path / "c.conll").splits["train"]["tokens"][0] == ["café"]


# ------------------------------------------------------------------------------------------------ images in memory


def test_images_in_rows_stay_undecoded_and_have_one_fingerprint() -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow comes with: pip install 'hubtune[vision]'")
    rows = [{"image": image.new("RGB", (4, 3), (value, 0, 0)), "label": str(value)} for value in (1, 2)]
    one, other = sources.load(rows), sources.load([dict(row) for row in rows])
    assert one.splits["train"][0]["image"]["bytes"].startswith(b"\x89PNG")
    assert one.fingerprint == other.fingerprint != sources.load(rows[::-1]).fingerprint


# ------------------------------------------------------------------------------------------------------- real data


def test_real_folders(shared: Path) -> None:
    counts = {}
    for name in ("digits_png", "bccd_detection", "nuclei_segmentation", "spoken_digits"):
        splits = sources.load(shared / "data" / name).splits
        counts[name] = ({split: len(rows) for split, rows in splits.items()}, splits["train"].column_names)
    assert counts["digits_png"] == ({"train": 480, "test": 120}, ["image", "label"])
    assert counts["bccd_detection"] == ({"train": 90, "validation": 30, "test": 30}, ["image", "objects"])
    assert counts["nuclei_segmentation"] == ({"train": 60, "test": 20}, ["image", "mask"])
    assert counts["spoken_digits"][0] == {"train": 420, "test": 120}
    assert {"audio", "label", "transcription"} <= set(counts["spoken_digits"][1])


def test_plugins_are_loaded_once_for_a_folder_with_many_files_of_no_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        (tmp_path / f"notes-{number}.unknown").write_text("notes", encoding="utf-8")
    (tmp_path / "train.csv").write_text("text,label\ngood,1\n", encoding="utf-8")
    loads: list[None] = []

    def plugin_formats() -> list[Any]:
        loads.append(None)
        return []

    monkeypatch.setattr(lookup, "plugin_formats", plugin_formats)
    assert sources.files_by_split(tmp_path)[0] == {"train": [tmp_path / "train.csv"]}
    assert len(loads) == 1
