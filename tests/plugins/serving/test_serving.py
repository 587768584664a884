"""`hubtune serve`: the same answers as `hubtune predict`, and what it says to requests that are wrong."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hubtune_plugins.serving.batcher import Batcher
from hubtune_plugins.serving.endpoint import Endpoint, application
from hubtune_plugins.serving.limits import Limits, Refusal
from hubtune_plugins.serving.rows import RowReader
from starlette.testclient import TestClient

import hubtune
from hubtune.contract import registry

TEXTS = ["What a lovely day", "The kettle broke after two weeks, and nobody answers my mails.", "/etc/passwd", "grey"]
JSON = {"Content-Type": "application/json"}
LIMITS = Limits(rows=8, body=20_000, characters=500, seconds=20, wait=0.05, batch=16, words=12)


@pytest.fixture(scope="module")
def model(tiny_model: Any, reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> hubtune.Run:
    folder = tmp_path_factory.mktemp("serving") / "run"
    return hubtune.train("text-classification", model=tiny_model("bert"), data=reviews, out=folder,
                         set={"train.max_steps": 2, "train.verify": False})


@pytest.fixture(scope="module")
def endpoint(model: hubtune.Model) -> Iterator[Endpoint]:
    made = Endpoint(model, LIMITS)
    yield made
    made.batcher.close(10)


@pytest.fixture(scope="module")
def client(endpoint: Endpoint) -> TestClient:
    return TestClient(application(endpoint, {"testserver"}), raise_server_exceptions=False)


@pytest.mark.parametrize("wrap", [lambda rows: rows, lambda rows: {"rows": rows}, lambda rows: [row["text"] for row in rows]])
def test_answers_are_those_of_predict(wrap: Any, client: TestClient, model: hubtune.Model) -> None:
    rows = [{"text": text} for text in TEXTS]
    found = client.post("/predict", json=wrap(rows)).json()
    assert (found["model"], found["task"]) == (Path(model.name).name, "text-classification")
    assert found["predictions"] == [{"row": number, **one} for number, one in enumerate(model.predict(rows))]


def test_labels_of_rows_are_not_seen(client: TestClient) -> None:
    with_label = client.post("/predict", json={"text": TEXTS[0], "label": "no such label", "text_pair": None})
    assert with_label.json() == client.post("/predict", json={"text": TEXTS[0]}).json()


@pytest.mark.parametrize(("body", "status", "said"), [
    ("{", 400, "is not JSON"), ("", 400, "is not JSON"), ('{"text": NaN}', 400, "NaN is not JSON"), ("[" * 9000, 400, "JSON|within each other"),
    (b"\xff", 400, "no UTF-8"), ("[]", 422, "there are no rows"), ("3", 422, "row 0: it is int"), ('[["a"]]', 422, "it is list"),
    ('{"text": 5}', 422, "'text' is int, not a text"), ('{"text": ""}', 422, "is empty"), ('{"path": "/etc/passwd"}', 422, "'path' is not known"),
    ('{"text": null}', 422, "NoneType"), ('{"text_pair": "a"}', 422, "'text' is missing"), (r'{"text": "\ud800"}', 422, "surrogate"),
    ('{"rows": {}}', 422, "not a list"), (json.dumps(["a"] * 9), 413, "9 rows; 8"), (json.dumps(["a" * 501]), 413, "501 characters"),
    (json.dumps(["a" * 30_000]), 413, "20,000 bytes"),
])
def test_a_wrong_request_is_told_what_is_wrong(body: str | bytes, status: int, said: str, client: TestClient) -> None:
    reply = client.post("/predict", content=body, headers=JSON)
    assert reply.status_code == status
    assert set(reply.json()) == {"error", "hint"}
    assert any(part in reply.json()["error"] for part in said.split("|"))


def test_other_kinds_of_bodies_paths_and_methods_are_refused_in_json(client: TestClient) -> None:
    for reply, status in ((client.post("/predict", content="a=b"), 415), (client.get("/predict"), 405), (client.get("/page.py"), 404),
                          (client.get("/../limits.py"), 404), (client.post("/predict", content=b"a", headers={"Content-Type": "image/png"}), 415)):
        assert (reply.status_code, set(reply.json())) == (status, {"error", "hint"})


@pytest.mark.parametrize(("headers", "is_answered"), [
    ({}, True), ({"Host": "evil.example"}, False), ({"Host": "testserver.evil.example"}, False), ({"Host": "testserver:8000"}, True),
    ({"Origin": "http://evil.example"}, False), ({"Origin": "null"}, False), ({"Origin": "http://testserver"}, True),
    ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, False), ({"Sec-Fetch-Site": "same-origin"}, True),
])
def test_browsers_that_other_sites_send_are_refused(headers: dict[str, str], is_answered: bool, client: TestClient) -> None:
    for reply in (client.post("/predict", json=TEXTS[:1], headers=headers), client.get("/info", headers=headers)):
        assert reply.status_code == (200 if is_answered else 403)
        assert not [name for name in reply.headers if name.startswith("access-control")]


def test_the_page_loads_nothing_from_elsewhere_and_its_files_are_there(client: TestClient) -> None:
    for path, kind in (("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript"), ("/docs", "text/html")):
        reply = client.get(path)
        assert reply.headers["content-type"].startswith(kind)
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        assert "//" not in reply.text.replace("http://www.w3.org/2000/svg", "").replace(str(client.base_url), "")


def test_health_and_the_description_fit_what_is_served(client: TestClient) -> None:
    assert client.get("/healthz").json()["status"] == "ok"
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == {"/predict", "/explain", "/healthz"}
    assert document["components"]["schemas"]["Row"]["required"] == ["text"]
    example = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert client.post("/predict", json=example).status_code == 200


def test_words_are_weighed_by_leaving_them_out(client: TestClient, model: hubtune.Model) -> None:
    found = client.post("/explain", json={"text": "a lovely day"}).json()
    whole, without = model.predict([{"text": "a lovely day"}, {"text": "a day"}])
    assert [one["word"] for one in found["words"]] == ["a", "lovely", "day"]
    label = whole["label"]
    assert found["words"][1]["weight"] == pytest.approx(whole["probabilities"][label] - without["probabilities"][label], abs=1e-6)
    assert client.post("/explain", json={"text": "one"}).status_code == 422
    assert client.post("/explain", json={"text": "a " * 13}).status_code == 413


def test_many_clients_get_the_answers_of_their_own_rows(endpoint: Endpoint, client: TestClient, model: hubtune.Model) -> None:
    expected = {text: model.predict([{"text": text}])[0] for text in TEXTS}
    before = endpoint.batcher.batches
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda number: client.post("/predict", json={"text": TEXTS[number % 4]}).json(), range(48)))
    assert endpoint.batcher.batches - before < 48
    for number, answer in enumerate(found):
        (one,), wanted = answer["predictions"], expected[TEXTS[number % 4]]
        assert one["label"] == wanted["label"]
        assert one["probabilities"] == pytest.approx(wanted["probabilities"], abs=1e-6)


class Slow:
    """A model that waits until it is let go, and fails on rows that say so."""

    def __init__(self) -> None:
        self.go, self.seen = threading.Event(), []

    def __call__(self, rows: list[Any]) -> list[Any]:
        self.seen.append(len(rows))
        assert self.go.wait(20)
        if any(row["text"] == "bad" for row in rows):
            raise hubtune.DataError("a bad row")
        return [{"said": row["text"]} for row in rows]


def until(done: Any) -> None:
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_full_queue_refuses_and_a_bad_row_spoils_no_other() -> None:
    slow = Slow()
    batcher = Batcher(slow, Limits(queue=4, batch=8, wait=0))
    first = batcher.submit([{"text": "first"}])
    until(lambda: slow.seen)
    waiting = [batcher.submit([{"text": text}]) for text in ("a", "bad", "b")]
    other = batcher.submit([{"text": "c", "text_pair": "d"}])
    with pytest.raises(Refusal) as refused:
        batcher.submit([{"text": "e"}])
    assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "1"})
    slow.go.set()
    assert first.result(20) == [{"said": "first"}]
    assert [waiting[0].result(20), waiting[2].result(20), other.result(20)] == [[{"said": "a"}], [{"said": "b"}], [{"said": "c"}]]
    with pytest.raises(hubtune.DataError):
        waiting[1].result(20)
    assert slow.seen[:2] == [1, 3]
    batcher.close(20)
    assert not batcher.thread.is_alive()
    with pytest.raises(Refusal):
        batcher.submit([{"text": "late"}])


def test_a_cancelled_request_is_not_computed_and_closing_answers_what_waits() -> None:
    slow = Slow()
    batcher = Batcher(slow, Limits(wait=0))
    first = batcher.submit([{"text": "first"}])
    until(lambda: slow.seen)
    dropped, kept = batcher.submit([{"text": "dropped"}]), batcher.submit([{"text": "kept"}])
    assert dropped.cancel()
    threading.Timer(0.05, slow.go.set).start()
    batcher.close(20)
    assert (first.result(0), kept.result(0), slow.seen) == ([{"said": "first"}], [{"said": "kept"}], [1, 1])


def test_no_answer_in_time_is_504(model: hubtune.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow()
    monkeypatch.setattr(hubtune.Model, "predict_rows", lambda self, rows: slow(rows))
    endpoint = Endpoint(model, dataclasses.replace(LIMITS, seconds=0.05))
    reply = TestClient(application(endpoint, {"testserver"})).post("/predict", json=["a"])
    assert (reply.status_code, set(reply.json())) == (504, {"error", "hint"})
    slow.go.set()
    endpoint.batcher.close(20)


# ------------------------------------------------------------------------------------------------- images and sounds


def png(width: int, height: int) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new("1", (width, height)).save(file, "PNG")
    return file.getvalue()


def reader(task: str, **limits: Any) -> RowReader:
    return RowReader(registry.load().tasks[task](), {}, dataclasses.replace(LIMITS, **limits))


def test_an_image_is_taken_as_base64_as_a_form_and_as_it_is(tmp_path: Path) -> None:
    images, data = reader("image-classification"), png(8, 4)
    text = base64.b64encode(data).decode()
    wanted = [{"image": {"bytes": data, "path": None}}]
    for value in ({"base64": text}, f"data:image/png;base64,{text}"):
        assert images.read(json.dumps({"image": value}).encode(), "application/json") == wanted
    assert images.read(data, "image/png") == wanted
    form = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n' + data + b"\r\n--x--\r\n"
    assert images.read(form, "multipart/form-data; boundary=x") == wanted


def test_a_name_of_a_file_is_never_read_and_a_large_image_never_decoded(tmp_path: Path) -> None:
    place, images = tmp_path / "a.png", reader("image-classification", pixels=100)
    place.write_bytes(png(8, 4))
    huge = {"base64": base64.b64encode(png(4000, 4000)).decode()}
    fits = {"base64": base64.b64encode(png(10, 6)).decode()}
    for value, status in ((str(place), 422), ({"path": str(place)}, 422), ({"bytes": "x", "path": str(place)}, 422), (f"file://{place}", 422),
                          ([[0]], 422), ({"base64": str(place)}, 422), ({"base64": base64.b64encode(b"%!PS-Adobe").decode()}, 422),
                          (huge, 413), ([fits, fits], 422)):
        with pytest.raises(Refusal) as refused:
            images.read(json.dumps({"image": value}).encode(), "application/json")
        assert refused.value.status == status
    with pytest.raises(Refusal, match="row 1") as refused:
        images.read(json.dumps([{"image": fits}, {"image": fits}]).encode(), "application/json")
    assert refused.value.status == 413


def test_a_long_sound_is_refused_by_its_header() -> None:
    np, soundfile = pytest.importorskip("numpy"), pytest.importorskip("soundfile")
    file = io.BytesIO()
    soundfile.write(file, np.zeros(4000, np.float32), 1000, format="WAV")
    assert reader("audio-classification").read(file.getvalue(), "audio/wav")[0]["audio"]["path"] is None
    with pytest.raises(Refusal, match="4 seconds") as refused:
        reader("audio-classification", seconds_of_sound=3).read(file.getvalue(), "audio/wav")
    assert refused.value.status == 413


def test_a_space_is_written_for_a_published_model_and_published(model: hubtune.Run, logged_in: Any, tmp_path: Path) -> None:
    from hubtune_plugins.commands.serve import written

    with pytest.raises(hubtune.RecipeError, match="not published"):
        written(model, str(tmp_path / "demo"), None)
    model.record["published"] = {"repo": "me/topics", "commit": "a" * 40, "pr": None}
    try:
        found = written(model, str(tmp_path / "demo"), "me/topics-demo")
    finally:
        model.record["published"] = None
    assert found["files"] == ["README.md", "app.py", "requirements.txt"]
    assert found["url"].endswith("/spaces/me/topics-demo")
    app = (tmp_path / "demo" / "app.py").read_text()
    compile(app, "app.py", "exec")
    assert f'model="me/topics", revision="{"a" * 40}"' in app
    assert all("==" in line for line in (tmp_path / "demo" / "requirements.txt").read_text().split())
    assert logged_in.store.get("space", "me/topics-demo").private
