from pathlib import Path

import pytest

from appliance.evaluation.dataset import BadDataset, read_dataset, read_pairs


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"not looked at")
    return path


def three_people(folder: Path) -> Path:
    for name in ("b/2.PNG", "b/1.jpg", "a/1.webp", "a/sub/2.tiff", "c/notes.txt", "a/.hidden.jpg"):
        picture(folder / name)
    return folder


def test_people_are_folders_and_their_photographs_are_found_in_order(tmp_path: Path) -> None:
    data = read_dataset(three_people(tmp_path / "site"))
    assert data.name == "site"
    assert data.people == ["a", "b", "c"]
    assert [(each.name, each.person) for each in data.photographs] == [
        ("a/1.webp", 0),
        ("a/sub/2.tiff", 0),
        ("b/1.jpg", 1),
        ("b/2.PNG", 1),
    ]
    assert data.ignored == 1
    assert data.groups == {}


@pytest.mark.parametrize("make", [False, True])
def test_a_folder_without_people_says_how_it_must_be_laid_out(tmp_path: Path, *, make: bool) -> None:
    if make:
        picture(tmp_path / "site" / "loose.jpg")
    with pytest.raises(BadDataset, match="--pairs" if make else "one that holds a folder"):
        read_dataset(tmp_path / "site")


def test_groups_are_read_and_not_stated_is_none(tmp_path: Path) -> None:
    folder = three_people(tmp_path)
    (folder / "groups.csv").write_text("\ufeffperson,age,tone\nb,40+, II \na,,V\n", encoding="utf-8")
    groups = read_dataset(folder).groups
    assert groups == {"age": [None, "40+", None], "tone": ["V", "II", None]}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must begin"),
        ("name,age\n", "must begin"),
        ("person\n", "must begin"),
        ("person,age,age\n", "must begin"),
        ("person,age\na\n", "line 2: 1 fields"),
        ("person,age\na,1\na,2\n", "line 3: this person is listed twice"),
        ("person,age\na,1\nzz,2\n", "line 3: this person has no folder"),
        (f"person,age\na,{'x' * 61}\n", "line 2: a label is longer"),
        ("person," + ",".join(f"a{n}" for n in range(13)) + "\n", "at most 12"),
        ('person,age\n"a,1\n', "not CSV"),
    ],
)
def test_wrong_groups_are_refused_with_the_line_and_without_the_label(
    tmp_path: Path, text: str, says: str
) -> None:
    folder = three_people(tmp_path)
    (folder / "groups.csv").write_text(text, encoding="utf-8")
    with pytest.raises(BadDataset, match=says) as refused:
        read_dataset(folder)
    assert "xx" not in str(refused.value)


def test_groups_in_another_encoding_are_refused(tmp_path: Path) -> None:
    folder = three_people(tmp_path)
    (folder / "groups.csv").write_bytes("person,ouderdom\na,één\n".encode("latin-1"))
    with pytest.raises(BadDataset, match="UTF-8"):
        read_dataset(folder)


def test_a_decomposed_name_in_groups_is_the_composed_folder(tmp_path: Path) -> None:
    picture(tmp_path / "Ren\u00e9" / "1.jpg")
    (tmp_path / "groups.csv").write_text("person,age\nRene\u0301,40\n", encoding="utf-8")
    assert read_dataset(tmp_path).groups == {"age": ["40"]}


def test_pairs_name_files_and_the_rest_of_the_folder_is_enrolled_too(tmp_path: Path) -> None:
    for name in ("x.jpg", "y.jpg", "z.jpg"):
        picture(tmp_path / name)
    listed = tmp_path / "pairs.csv"
    listed.write_text("file_x,file_y,Decision\ny.jpg,x.jpg,Yes\ny.jpg,./z.jpg,no\n", encoding="utf-8")
    pairs = read_pairs(listed, tmp_path)
    assert [each.name for each in pairs.data.photographs] == ["y.jpg", "x.jpg", "z.jpg"]
    assert [(pair.one, pair.other, pair.same) for pair in pairs.pairs] == [(0, 1, True), (0, 2, False)]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("x.jpg,y.jpg", "line 2: a pair is"),
        ("x.jpg,y.jpg,maybe", "line 2: the third field"),
        ("x.jpg,./x.jpg,yes", "line 2: a photograph is no pair with itself"),
        ("x.jpg,y.jpg,yes\ny.jpg,x.jpg,no", "line 3: this pair is listed twice"),
        ("x.jpg,a\0b.jpg,yes", "line 2: there is no such file"),
        (f"x.jpg,{'x' * 300}.jpg,yes", "line 2: there is no such file"),
        ("x.jpg,missing.jpg,yes", "line 2: there is no such file"),
        ("x.jpg,../../outside.jpg,yes", "line 2: there is no such file"),
        ("", "names no pair"),
    ],
)
def test_wrong_pairs_are_refused_with_the_line(tmp_path: Path, line: str, says: str) -> None:
    picture(tmp_path / "outside.jpg")
    folder = tmp_path / "a" / "b"
    picture(folder / "x.jpg")
    picture(folder / "y.jpg")
    (folder / "pairs.csv").write_text(f"one,other,same\n{line}\n", encoding="utf-8")
    with pytest.raises(BadDataset, match=says):
        read_pairs(folder / "pairs.csv", folder)
