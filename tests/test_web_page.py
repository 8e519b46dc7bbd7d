"""The page in a real Chromium: record, upload, read, compare, correct; on phone and desktop, in light and dark."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from rapidfuzz.distance import Levenshtein

from tests.browser import WAIT_MS, Visit, chromium, needs_browser, playwright, serve
from tests.conftest import Trainer, run
from tests.learnt_speech import SAMPLE_RATE, sentences
from tests.serving import Serving, paused, serving
from tests.test_containers import written
from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.audio.decode import decode
from whisper_ft.data.formats.detect import format_of
from whisper_ft.decoding.transcript_options import TranscriptOptions
from whisper_ft.runtime.atomic import new_folder, write_json

pytestmark = [*needs_browser, pytest.mark.long]
__all__ = ["playwright"]  # a fixture

MOST_CER = 0.02
SMALL_MB = 4
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def clip(corpus: Path) -> Waveform:
    """The second sentence that the model knows by heart."""
    return decode(sentences(corpus / "validation")[1].audio, SAMPLE_RATE, 30.0)


@pytest.fixture(scope="module")
def sentence(corpus: Path) -> str:
    return sentences(corpus / "validation")[1].text


@pytest.fixture(scope="module")
def run_dir(learnt: Path, corpus: Path, micro_whisper: Path, shared: Path, tmp_path_factory: Any) -> Path:
    """A run whose best model knows three sentences. Its start model knows nothing."""
    whole = Trainer(shared, corpus, micro_whisper, shared).reference()
    folder = Path(shutil.copytree(whole, tmp_path_factory.mktemp("runs") / "mine"))
    publish(folder, learnt, 8)
    return folder


def publish(run_dir: Path, model: Path, step: int) -> None:
    """Replace the best model of a run, as training does."""
    with new_folder(run_dir / "best") as folder:
        shutil.copytree(model, folder, dirs_exist_ok=True)
    write_json(run_dir / "best.json", {"step": step, "metric": "wer", "value": 0.125})


@pytest.fixture(scope="module")
def files(clip: Waveform, tmp_path_factory: Any) -> Path:
    """Recordings to upload, and files that are none."""
    folder = Path(tmp_path_factory.mktemp("files"))
    soundfile.write(folder / "clip.wav", clip, SAMPLE_RATE)
    soundfile.write(folder / "clip.mp3", clip, SAMPLE_RATE)
    soundfile.write(folder / "silence.wav", np.zeros(3 * SAMPLE_RATE, np.float32), SAMPLE_RATE)
    soundfile.write(folder / "long.wav", np.tile(padded(clip, 0.5, 1.5), 12), SAMPLE_RATE)
    (folder / "notes.wav").write_text("These are notes, not sound.\n" * 100)
    (folder / "large.wav").write_bytes(bytes(1_000_000 * SMALL_MB + 1))
    # The microphone plays from the moment when it is opened, which is before the page records.
    soundfile.write(folder / "microphone.wav", padded(clip, 1.5, 1.0), SAMPLE_RATE)
    return folder


def padded(clip: Waveform, before: float, after: float) -> Waveform:
    return np.pad(clip, (round(before * SAMPLE_RATE), round(after * SAMPLE_RATE)))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: Any) -> Path:
    return Path(tmp_path_factory.mktemp("kept")) / "corrections"


@pytest.fixture(scope="module")
def address(run_dir: Path, kept: Path) -> Iterator[str]:
    with serve(run_dir, kept, "--max_mb", str(SMALL_MB)) as address:
        yield address


@pytest.fixture(scope="module")
def near(run_dir: Path, tmp_path_factory: Any) -> Iterator[Serving]:
    """A server in this process, so that its requests can be looked at."""
    with serving(run_dir, corrections=Path(tmp_path_factory.mktemp("near"))) as served:
        yield served


@pytest.fixture(scope="module")
def browser(playwright: Any, files: Path) -> Iterator[Any]:
    with chromium(playwright, files / "microphone.wav") as browser:
        yield browser


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Visit]:
    visit = Visit(browser, address, permissions=["microphone"], viewport=DESKTOP)
    yield visit
    visit.close()


def cer(text: str, reference: str) -> float:
    return Levenshtein.distance(text, reference) / len(reference)


@pytest.fixture(scope="module")
def evaluated(learnt: Path, clip: Waveform, tmp_path_factory: Any) -> str:
    """The text of evaluate.py for the clip."""
    folder = tmp_path_factory.mktemp("evaluated")
    soundfile.write(folder / "clip.wav", clip, SAMPLE_RATE)
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "clip.wav", "text": "х"}) + "\n")
    arguments = [
        "--model",
        str(learnt),
        "--data.path",
        str(folder),
        "--data.language",
        "be",
        "--out",
        str(folder / "out"),
    ]
    ended = run("evaluate.py", *arguments)
    assert ended.code == 0, ended.err
    (row,) = (folder / "out/predictions.jsonl").read_text().splitlines()
    return str(json.loads(row)["hyp"])


def record(visit: Visit, seconds: float, decibels: float | None = None) -> None:
    """Record for some seconds of the page's own clock, and until the meter shows a level, and wait for the text."""
    visit.page.click("#record")
    visit.page.wait_for_selector("#recording", state="visible")
    if decibels is not None:
        visit.until(f"document.querySelector('#meter').ariaValueNow > {decibels}")
    visit.until(f"document.querySelector('#clock').value >= '0:0{int(seconds)}'")
    visit.page.click("#record")
    visit.wait()


def sound_of(visit: Visit) -> Waveform:
    """The sound in the player."""
    save = """() => {
        const link = document.createElement("a");
        Object.assign(link, { href: document.querySelector("#audio").src, download: "sound.wav" });
        link.click();
    }"""
    with visit.page.expect_download() as download:
        visit.page.evaluate(save)
    return decode(Path(download.value.path()).read_bytes(), SAMPLE_RATE, 600.0)


def test_a_recording_shows_its_level_has_the_text_of_evaluate_py_and_is_not_filtered(
    visit: Visit, evaluated: str, sentence: str, clip: Waveform
):
    assert visit.page.get_attribute("#meter", "aria-valuenow") == "-60", "silence"
    record(visit, 4, decibels=-40)
    assert cer(visit.words, evaluated) <= MOST_CER
    assert cer(evaluated, sentence) <= MOST_CER, "the model should know it by heart"
    heard = sound_of(visit)
    match = np.correlate(heard, clip, "valid")
    place = int(np.argmax(match))
    part = heard[place : place + len(clip)]
    assert match[place] / np.linalg.norm(part) / np.linalg.norm(clip) > 0.99
    assert np.linalg.norm(part) / np.linalg.norm(clip) == pytest.approx(1, abs=0.05)
    assert not visit.complaints


def encoded(clip: Waveform, path: Path, codec: str, rate: int) -> Path:
    """Write a file as phones and browsers do."""
    av = pytest.importorskip("av", reason="needs PyAV, which also reads such files")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(clip[None], format="fltp", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        resampler = av.AudioResampler(
            format=stream.format, layout="mono", rate=rate, frame_size=stream.frame_size or 960
        )
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    "name",
    ["clip.wav", "clip.webm", *(pytest.param(name, marks=pytest.mark.matrix) for name in ("clip.mp3", "clip.m4a"))],
)
def test_an_upload_of_any_format_has_the_text_of_evaluate_py(
    visit: Visit, files: Path, tmp_path: Path, clip: Waveform, evaluated: str, name: str
):
    path = files / name
    if name.endswith("m4a"):
        path = encoded(clip, tmp_path / name, "aac", 44_100)
    if name.endswith("webm"):
        path = encoded(clip, tmp_path / name, "libopus", 48_000)
    visit.upload(path)
    assert cer(visit.words, evaluated) <= MOST_CER
    assert visit.text("#sound-name") == name
    assert not visit.complaints


WATCH_BAR = """() => {
    const bar = document.querySelector("#bar");
    window.seen = [];
    const note = () => seen.push([document.querySelector("#progress-text").textContent, bar.position]);
    new MutationObserver(note).observe(bar, { attributes: true });
}"""


def send_slowly(visit: Visit, bytes_per_second: int) -> None:
    session = visit.context.new_cdp_session(visit.page)
    session.send("Network.enable")
    speed = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": bytes_per_second}
    session.send("Network.emulateNetworkConditions", speed)


def test_the_bar_of_an_upload_moves_has_a_name_and_its_cancellation_a_key(
    browser: Any, near: Serving, tmp_path: Path, clip: Waveform, evaluated: str
):
    visit, path = Visit(browser, near.address, viewport=DESKTOP), tmp_path / "large.wav"
    page = visit.page
    soundfile.write(path, padded(clip, 0.0, 90.0), SAMPLE_RATE)
    page.evaluate(WATCH_BAR)
    send_slowly(visit, 4_000_000)
    visit.upload(path)
    assert cer(visit.words, evaluated) <= MOST_CER
    shares = [share for text, share in page.evaluate("seen") if text == "sending the sound"]
    assert shares == sorted(shares)
    assert len({share for share in shares if 0 < share < 1}) >= 3
    page.click("#correct")
    page.fill("#consent", "my own voice")
    page.click("#correction [type=submit]")
    page.get_by_role("progressbar", name="Sending the sound", exact=True).wait_for()
    page.wait_for_selector("#editor", state="hidden")
    assert (near.server.settings.corrections / "metadata.jsonl").read_text().count("\n") == 1
    send_slowly(visit, 500_000)
    page.click("#run")
    page.get_by_role("progressbar", name="sending the sound", exact=True).wait_for()
    visit.until("document.querySelector('#bar').position > 0.05")
    press(visit, "#cancel", "Enter")
    visit.wait()
    assert "Cancelled" in visit.text("#problem")
    assert not visit.words
    assert not near.server.jobs
    assert not visit.complaints
    visit.close()


def begin(visit: Visit, path: Path) -> None:
    """Choose a file, and wait until its request waits behind another one."""
    visit.page.set_input_files("#file", str(path))
    visit.until("document.querySelector('#progress-text').textContent.includes('waiting')")


def test_two_people_at_once_get_their_own_texts_one_of_them_of_a_video(
    browser: Any, near: Serving, files: Path, corpus: Path, tmp_path: Path, sentence: str
):
    other = sentences(corpus / "validation")[0]
    sound = decode(other.audio, SAMPLE_RATE, 30.0).repeat(3)[:, None]
    video = tmp_path / "talk.mp4"
    video.write_bytes(written("mp4", sound, 3 * SAMPLE_RATE, pictures=20))
    visits = [Visit(browser, near.address, viewport=DESKTOP) for _ in range(2)]
    with paused(near.server):
        for visit, path in zip(visits, (files / "clip.wav", video), strict=True):
            begin(visit, path)
        assert len(near.server.jobs) == 2
    for visit, text in zip(visits, (sentence, other.text), strict=True):
        visit.wait()
        assert cer(visit.words, text) <= MOST_CER
        visit.close()


def test_each_option_of_the_page_reaches_the_server(browser: Any, near: Serving, files: Path):
    visit = Visit(browser, near.address, viewport=DESKTOP)
    page = visit.page
    page.click("details > summary")
    for name, value in (("language", "ru"), ("task", "translate")):
        page.select_option(f"#{name}", value)
    page.fill("#prompt", "Ада Лаўлэйс")
    page.fill("#beams", "3")
    for name, is_on in (("words", False), ("timestamps", True), ("fallback", True)):
        page.set_checked(f"#{name}", is_on)
    with paused(near.server):
        begin(visit, files / "clip.wav")
        (job,) = near.server.jobs.values()
        assert job.request.options == TranscriptOptions(
            "ru", "translate", timestamps=True, words=False, prompt="Ада Лаўлэйс", num_beams=3,
            temperature_fallback=True, batch_size=near.server.models.batch_size(None),
        )  # fmt: skip
    visit.wait()
    assert not page.is_visible("#problem")
    page.select_option("#language", "auto")
    with paused(near.server):
        page.click("#run")
        visit.until("document.querySelector('#progress-text').textContent.includes('waiting')")
        (job,) = near.server.jobs.values()
        assert job.request.options.language == "auto"
    visit.wait()
    assert not visit.complaints
    visit.close()


def test_a_server_that_ended_is_named_as_the_reason(browser: Any, learnt: Path, files: Path):
    with serving(learnt) as served:
        visit = Visit(browser, served.address)
        visit.upload(files / "clip.wav")
        assert visit.words
    visit.page.click("#run")
    visit.wait()
    assert "does not answer" in visit.text("#problem")
    visit.close()


def test_without_confidence_nothing_is_said_about_it(visit: Visit, files: Path):
    visit.page.click("details > summary")
    visit.page.uncheck("#words")
    visit.upload(files / "clip.wav")
    visit.page.focus("#text")
    visit.page.keyboard.press("ArrowRight")
    news = visit.page.text_content("#word-news")
    assert visit.words in news
    assert "sure" not in news
    assert not visit.page.is_visible("#text-tools")


def test_a_dropped_and_a_pasted_file_are_transcribed(visit: Visit, files: Path, evaluated: str):
    content = list((files / "clip.wav").read_bytes())
    give = """([content, kind]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(content)], `${kind}.wav`, { type: "audio/wav" }));
        const event = kind === "paste" ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true })
            : new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true });
        document.body.dispatchEvent(event);
    }"""
    visit.page.evaluate(give, [content, "dragenter"])
    assert visit.page.is_visible("#drop")
    for kind in ("drop", "paste"):
        visit.page.evaluate(give, [content, kind])
        assert not visit.page.is_visible("#drop")
        visit.wait()
        assert visit.text("#sound-name") == f"{kind}.wav"
        assert cer(visit.words, evaluated) <= MOST_CER


@pytest.mark.parametrize(
    ("name", "fact"), [("notes.wav", "notes.wav"), ("large.wav", f"{SMALL_MB} MB")], ids=["text", "large"]
)
def test_a_file_that_cannot_be_used_is_refused_with_a_reason(visit: Visit, files: Path, name: str, fact: str):
    visit.upload(files / name)
    assert fact in visit.text("#problem")
    assert not visit.words
    visit.upload(files / "clip.wav")
    assert not visit.page.is_visible("#problem")
    assert visit.words


def test_silence_has_no_text(visit: Visit, files: Path):
    visit.upload(files / "silence.wav")
    assert not visit.words
    assert "No speech" in visit.text("#text")
    assert "no sound" in visit.text("#signs")


def test_a_long_recording_shows_its_text_as_it_comes_and_can_be_cancelled(visit: Visit, files: Path, sentence: str):
    visit.page.set_input_files("#file", str(files / "long.wav"))
    visit.page.wait_for_selector("#text .word")
    visit.page.click("#cancel")
    visit.wait()
    assert visit.page.is_visible("#problem")
    some = visit.page.locator("#text .paragraph").count()
    visit.page.click("#run")
    visit.wait()
    assert visit.page.locator("#text .paragraph").count() >= max(some, 2)
    assert visit.words.count(sentence.split()[0]) >= 10


def test_words_have_their_confidence_light_up_and_are_walked_through_by_keys(visit: Visit, files: Path):
    visit.upload(files / "clip.wav")
    classes = visit.page.eval_on_selector_all("#text .word", "words => words.map(word => word.className)")
    assert all(any(kind in name for kind in ("sure", "fairly", "unsure", "doubtful")) for name in classes)
    assert all(
        "% sure" in title.replace("\xa0", " ")
        for title in visit.page.eval_on_selector_all("#text .word", "words => words.map(word => word.title)")
    )
    visit.page.evaluate("document.querySelector('#audio').muted = true")
    visit.page.focus("#text")
    visit.page.keyboard.press("ArrowRight")
    visit.page.keyboard.press("ArrowRight")
    assert visit.page.locator("#text .word.cursor").inner_text() == visit.words.split()[1]
    assert visit.words.split()[1] in visit.page.text_content("#word-news")
    visit.page.keyboard.press("Enter")
    visit.page.wait_for_selector("#text .word.lit")
    visit.until("document.querySelector('#audio').ended")
    visit.page.locator("#text .word").first.click()
    visit.until("document.querySelector('#audio').currentTime > 0 && !document.querySelector('#audio').ended")


def test_the_text_is_downloaded_as_a_file_of_each_format(visit: Visit, files: Path, sentence: str):
    visit.upload(files / "clip.wav")
    for form in ("txt", "srt", "vtt", "json"):
        with visit.page.expect_download() as download:
            visit.page.get_by_role("button", name=f"Download as {form}").click()
        assert download.value.suggested_filename == f"clip.{form}"
        assert sentence in Path(download.value.path()).read_text().replace("\n", " ")


def test_a_new_best_model_is_announced_and_used_without_a_restart(
    visit: Visit, files: Path, run_dir: Path, learnt: Path
):
    visit.upload(files / "clip.wav")
    assert "step 8" in visit.text("#text-facts")
    publish(run_dir, learnt, 12)
    try:
        visit.page.wait_for_selector("#model-news:not(:empty)")
        assert "step 12" in visit.text("#model-news")
        visit.page.click("#run")
        visit.wait()
        assert "step 12" in visit.text("#text-facts")
        assert "12.50 %" in visit.text("#model-facts")
    finally:
        publish(run_dir, learnt, 8)


def test_two_models_side_by_side_and_a_blind_test_whose_answers_are_counted(visit: Visit, files: Path, kept: Path):
    page = visit.page
    page.select_option("#compare", "start")
    visit.upload(files / "clip.wav")
    page.wait_for_selector("#beside", state="visible")
    assert page.locator("#beside mark").count()
    page.check("#blind")
    for vote in (1, 2):
        visit.upload(files / "clip.wav")
        page.wait_for_selector("#vote", state="visible")
        assert [visit.text("#first-name"), visit.text("#second-name")] == ["A", "B"]
        assert not page.is_visible("#text")
        shown = visit.text("#result")
        assert "start" not in shown
        assert "latest" not in shown
        learnt_side = 0 if "Чаму" in visit.text("#first-text") else 1
        page.eval_on_selector(f'[data-vote="{learnt_side}"]', "button => { button.click(); button.click(); }")
        page.wait_for_selector("#tally p")
        assert "latest" in visit.text("#first-name" if learnt_side == 0 else "#second-name")
        assert f"latest best model, step 8: {vote}" in visit.text("#tally")
        assert page.is_visible("#text")
    rows = [json.loads(line) for line in (kept / "blind_test.jsonl").read_text().splitlines()]
    assert [(row["first"], row["better"]) for row in rows] == [("mine: latest best model, step 8", "first")] * 2
    assert all("interval" in visit.text("#tally") for _ in rows)


def test_a_correction_is_kept_as_training_data_and_deleted(visit: Visit, files: Path, kept: Path, clip: Waveform):
    page = visit.page
    visit.upload(files / "clip.wav")
    page.click("#correct")
    page.fill("#parts textarea", "Чаму Дзям’ян піша?")
    page.fill("#speaker", "Ада")
    page.click("#correction [type=submit]")
    assert page.is_visible("#editor"), "without a note of consent nothing is kept"
    page.fill("#consent", "my own voice")
    page.click("#correction [type=submit]")
    page.wait_for_selector("#editor", state="hidden")
    page.wait_for_selector("#kept-details", state="visible")
    assert format_of(str(kept)) == "audiofolder"
    (row,) = [json.loads(line) for line in (kept / "metadata.jsonl").read_text().splitlines()]
    assert (row["text"], row["speaker"], row["consent"], row["language"]) == (
        "Чаму Дзям’ян піша?",
        "Ада",
        "my own voice",
        "be",
    )
    sound, _ = soundfile.read(kept / row["file_name"], dtype="float32")
    assert len(sound) == pytest.approx(len(clip), abs=SAMPLE_RATE / 1000)
    np.testing.assert_allclose(sound, clip[: len(sound)], atol=1e-3)
    assert str(kept) in visit.text("#command")
    page.click("#kept-count")
    page.get_by_role("button", name="Delete: ").click()
    page.get_by_role("button", name="Delete for good: ").click()
    page.wait_for_selector("#kept-details", state="hidden")
    assert not (kept / row["file_name"]).exists()
    assert not (kept / "metadata.jsonl").read_text()


def tab_to(visit: Visit, selector: str) -> None:
    """Press the tab key until an element has the focus."""
    for _ in range(60):
        visit.page.keyboard.press("Tab")
        if visit.page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"{selector} is not reached by the tab key")


def press(visit: Visit, selector: str, *keys: str) -> None:
    """Go to an element by the tab key, and press keys there."""
    tab_to(visit, selector)
    for key in keys:
        visit.page.keyboard.press(key)


def test_everything_is_done_by_keyboard_alone(visit: Visit, evaluated: str):
    press(visit, "#record", "Enter")
    visit.until("document.querySelector('#clock').value >= '0:04'")
    visit.page.keyboard.press("Enter")
    visit.wait()
    assert cer(visit.words, evaluated) <= MOST_CER
    for selector in ("#run", "#colours", "#text", "#downloads button", "#copy"):
        tab_to(visit, selector)
    press(visit, "#correct", "Enter")
    tab_to(visit, "#parts textarea")
    tab_to(visit, "#consent")
    press(visit, "#discard", "Enter")
    assert not visit.page.is_visible("#editor")


def test_a_file_is_chosen_compared_kept_and_deleted_by_keyboard_alone(
    visit: Visit, files: Path, kept: Path, evaluated: str
):
    page, choosers = visit.page, list[Any]()
    page.on(
        "filechooser", lambda chooser: choosers.append(chooser)
    )  # early, because the browser opens a window of its own until it is told
    press(visit, "#compare", "End")
    assert page.input_value("#compare") == "start"
    press(visit, "#blind", "Space")
    press(visit, "#file", "Enter")
    for _ in range(WAIT_MS // 20):
        if choosers:
            break
        page.wait_for_timeout(20)
    choosers[0].set_files(str(files / "clip.wav"))
    page.wait_for_selector("#vote", state="visible")
    press(visit, '[data-vote="-1"]', "Enter")
    page.wait_for_selector("#tally p")
    assert "no difference" in visit.text("#tally")
    assert page.evaluate("document.activeElement.id") == "beside-title"
    assert cer(visit.words, evaluated) <= MOST_CER
    press(visit, "#correct", "Enter")
    press(visit, "#parts textarea", "Control+a")
    page.keyboard.type("Сябры")
    tab_to(visit, "#consent")
    page.keyboard.type("mine")
    press(visit, "#correction [type=submit]", "Enter")
    visit.until("document.activeElement.id == 'kept-title'")  # the list of what is kept comes after the editor closes
    rows = [json.loads(line) for line in (kept / "metadata.jsonl").read_text().splitlines()]
    assert [(row["text"], row["consent"]) for row in rows] == [("Сябры", "mine")]
    press(visit, "#kept-count", "Enter")
    press(visit, "#kept-rows button", "Enter", "Enter")
    page.wait_for_selector("#kept-details", state="hidden")
    assert not (kept / "metadata.jsonl").read_text()


NAMED = {"button", "checkbox", "combobox", "textbox", "spinbutton", "slider", "meter", "progressbar", "link", "group"}


def test_each_control_has_a_name_for_screen_readers(visit: Visit, files: Path):
    page = visit.page
    page.click("details > summary")
    page.select_option("#compare", "start")
    visit.upload(files / "clip.wav")
    page.click("#correct")
    page.click("#record")
    page.wait_for_selector("#recording", state="visible")
    tree = visit.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    controls = [node for node in tree if not node.get("ignored") and node["role"]["value"] in NAMED]
    nameless = [node["role"]["value"] for node in controls if not node.get("name", {}).get("value", "").strip()]
    assert len(controls) > 25
    assert not [role for role in nameless if role != "group"]
    page.click("#record")


def test_nothing_is_requested_from_anywhere_else(visit: Visit, files: Path, address: str):
    visit.page.select_option("#compare", "start")
    visit.upload(files / "clip.wav")
    visit.page.wait_for_selector("#beside", state="visible")
    record(visit, 1)
    assert {url.split("/")[2] for url in visit.requests if not url.startswith("blob:")} == {address.split("/")[2]}
    assert not visit.complaints


# Least contrast of text by the guidelines WCAG 2.2 (AA), measured between colour and background as they are drawn.
CONTRAST = """() => {
    const light = (colour) => {
        const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((value) => value / 255)
            .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const paper = (node) => {
        for (; node; node = node.parentElement) {
            const colour = getComputedStyle(node).backgroundColor;
            if (!/, 0\\)$/.test(colour)) return colour;
        }
    };
    const found = [];
    for (const node of document.querySelectorAll("body *")) {
        const isText = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
        const isSeen = node.checkVisibility() && !node.closest(".hidden, .skip, :disabled, datalist, option");
        if (!isText || !isSeen) continue;
        const [a, b] = [light(getComputedStyle(node).color), light(paper(node))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) found.push([node.textContent.trim().slice(0, 40), ratio]);
    }
    return found;
}"""


def test_phone_and_desktop_in_light_and_dark_are_readable(visit: Visit, files: Path):
    page = visit.page
    page.click("details > summary")
    page.select_option("#compare", "start")
    visit.upload(files / "clip.wav")
    page.wait_for_selector("#beside", state="visible")
    page.click("#correct")
    papers = set()
    for viewport in (PHONE, DESKTOP):
        page.set_viewport_size(viewport)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            papers.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            assert not page.evaluate(CONTRAST), (viewport, scheme)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (viewport, scheme)
            small = page.eval_on_selector_all(
                "button:not(.time), select, .button", "nodes => nodes.map(node => node.getBoundingClientRect()).filter("
                "box => box.width && (box.height < 24 || box.width < 24)).length",
            )  # fmt: skip
            assert not small, "a target is at least 24 pixels wide and high (WCAG 2.2)"
    assert len(papers) == 2


def test_without_leave_to_use_the_microphone_the_reason_is_said(browser: Any, address: str, files: Path):
    visit = Visit(browser, address)
    visit.page.click("#record")
    visit.page.wait_for_selector("#sound-problem", state="visible")
    assert "microphone" in visit.text("#sound-problem")
    visit.upload(files / "clip.wav")
    assert visit.words
    visit.close()


@pytest.mark.matrix
def test_on_another_host_without_https_the_page_says_how_to_record(
    playwright: Any, learnt: Path, files: Path, tmp_path: Path
):
    with (
        serve(learnt, tmp_path / "kept", "--token") as address,
        chromium(playwright, None, "--host-resolver-rules=MAP model.example 127.0.0.1") as browser,
    ):
        visit = Visit(browser, address.replace("127.0.0.1", "model.example"))
        assert visit.page.is_disabled("#record")
        assert "ssh -L" in visit.text("#sound-problem")
        assert "token" not in visit.page.url, "a token in the address would stay in the history"
        visit.upload(files / "clip.wav")
        assert visit.words
        visit.close()
