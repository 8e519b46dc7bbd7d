// The sound to transcribe: recorded, uploaded, dropped or pasted; and its player.

import { byId, clock, element, show, showText } from "./format.js";
import { Recorder, microphones, obstacle } from "./recorder.js";

const QUIET = -50; // dB of full scale; speech close to a microphone has -30 to -15
const LOUD = 0.98; // peak at which samples are probably clipped

export class Sound {
  // onFile is called with each new file; it has a name and can be sent as it is
  constructor(onFile) {
    this.onFile = onFile;
    this.file = null;
    this.audio = byId("audio");
    this.recorder = null;
    byId("record").addEventListener("click", () => this.toggle());
    byId("file").addEventListener("change", (event) => this.take(event.target.files));
    byId("microphone").addEventListener("change", () => this.restart());
    this.audio.addEventListener("error", () => this.showPlayer(!this.audio.src));
    this.listenForDrops();
    document.addEventListener("paste", (event) => {
      if (event.clipboardData.files.length) this.take(event.clipboardData.files);
    });
    const reason = obstacle();
    byId("record").disabled = Boolean(reason);
    showText(byId("sound-problem"), reason);
    byId("sound-problem").classList.toggle("note", Boolean(reason));
  }

  listenForDrops() {
    const overlay = byId("drop");
    const holdsFile = (event) => event.dataTransfer?.types.includes("Files");
    let depth = 0; // dragenter and dragleave come for each element that is passed
    document.addEventListener("dragenter", (event) => {
      if (!holdsFile(event)) return;
      depth += 1;
      show(overlay, true);
    });
    document.addEventListener("dragleave", (event) => {
      if (!holdsFile(event)) return;
      depth -= 1;
      show(overlay, depth > 0);
    });
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => {
      if (!holdsFile(event)) return;
      event.preventDefault();
      depth = 0;
      show(overlay, false);
      this.take(event.dataTransfer.files);
    });
  }

  take(files) {
    const [file] = files;
    if (!file) return;
    if (this.recorder) this.endRecording();
    const others = files.length > 1 ? "Only the first file was taken. `transcribe` of the command line takes many." : "";
    this.use(file, file.name || "pasted sound");
    showText(byId("sound-problem"), others);
    byId("file").value = ""; // so that the same file can be chosen again
  }

  use(file, name) {
    showText(byId("sound-problem"), "");
    this.file = file;
    this.name = name;
    URL.revokeObjectURL(this.audio.src);
    this.audio.src = URL.createObjectURL(file);
    this.showPlayer(true);
    byId("sound-name").replaceChildren(element("bdi", { textContent: name }));
    show(byId("player"), true);
    this.onFile(file, name);
  }

  // Some formats that the model hears have no decoder in the browser.
  showPlayer(canPlay) {
    show(this.audio, canPlay);
    show(byId("no-player"), !canPlay);
  }

  play(seconds) {
    this.audio.currentTime = seconds;
    this.audio.play().catch(() => {}); // without a decoder there is nothing to hear
  }

  async toggle() {
    if (this.isStarting) return;
    if (this.recorder) this.finish();
    else {
      this.audio.pause();
      await this.record();
    }
  }

  async record(deviceId) {
    showText(byId("sound-problem"), "");
    byId("sound-problem").classList.remove("note");
    const recorder = new Recorder((level) => this.showLevel(level), () => this.finish());
    this.isStarting = true; // a disabled button would lose the focus
    try {
      await recorder.start(deviceId);
    } catch (error) {
      showText(byId("sound-problem"), error.message);
      return;
    } finally {
      this.isStarting = false;
    }
    this.recorder = recorder;
    this.loudest = -Infinity;
    this.showRecording(true);
    await this.listMicrophones(recorder.deviceId);
  }

  showRecording(isOn) {
    show(byId("recording"), isOn);
    byId("record-name").textContent = isOn ? "Stop" : "Record";
    byId("record").classList.toggle("on", isOn);
    document.title = isOn ? "● Recording" : "Try the model";
    byId("clock").textContent = "0:00";
    byId("level-word").textContent = "";
  }

  showLevel({ rms, peak, seconds }) {
    const decibels = Math.max(-60, 20 * Math.log10(rms || 1e-9));
    this.loudest = Math.max(this.loudest, decibels);
    byId("clock").textContent = clock(seconds);
    byId("level").style.width = `${(100 * (decibels + 60)) / 60}%`;
    byId("level").classList.toggle("loud", peak >= LOUD);
    byId("meter").setAttribute("aria-valuenow", Math.round(decibels));
    const word = peak >= LOUD ? "too loud" : seconds > 2 && this.loudest < QUIET ? "nothing is heard: is it the right microphone?" : "";
    if (word || seconds % 1 < 0.1) byId("level-word").textContent = word;
  }

  async listMicrophones(current) {
    const devices = await microphones();
    const options = devices.map((device) => element("option", { value: device.deviceId, textContent: device.label }));
    byId("microphone").replaceChildren(...options);
    byId("microphone").value = current;
    show(byId("microphones"), devices.length > 1);
  }

  async restart() {
    this.endRecording();
    await this.record(byId("microphone").value);
  }

  endRecording() {
    const file = this.recorder.stop();
    this.recorder = null;
    this.showRecording(false);
    return file;
  }

  finish() {
    if (!this.recorder) return;
    const file = this.endRecording();
    if (!file) {
      showText(byId("sound-problem"), "The microphone gave no sound. Record for longer, or choose another microphone.");
      return;
    }
    const stamp = new Date().toTimeString().slice(0, 8).replaceAll(":", "-");
    this.use(new File([file], `recording-${stamp}.wav`, { type: "audio/wav" }), `recording-${stamp}.wav`);
  }
}
