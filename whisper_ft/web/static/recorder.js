// Recorder of the microphone. The result is a WAV file, which every server reads without a decoder.

// Reason for which this browser cannot record here, in words for people; null if it can.
export function obstacle() {
  if (window.isSecureContext && navigator.mediaDevices?.getUserMedia && window.AudioWorkletNode) return null;
  if (window.isSecureContext) return "This browser cannot record. Upload a file instead.";
  const port = location.port || "80";
  return "Browsers give the microphone only to pages of https or of this machine. Uploads work. To record, run " +
    `"ssh -L ${port}:localhost:${port} ${location.hostname}" here, and open the address that the server printed with localhost in ` +
    `place of ${location.hostname}; or serve by https.`;
}

const REASONS = {
  NotAllowedError: "The browser refused the microphone. Allow it beside the address of this page, then record again.",
  NotFoundError: "No microphone is connected. Connect one, or upload a file.",
  NotReadableError: "The microphone cannot be opened, perhaps because another program uses it.",
};

export class Recorder {
  // onLevel gets { rms, peak, seconds } about 20 times a second; onEnd is called if the microphone is unplugged
  constructor(onLevel, onEnd) {
    this.onLevel = onLevel;
    this.onEnd = onEnd;
  }

  // Open the microphone and record. Throws an Error with words for people.
  async start(deviceId) {
    // The browser's own filters are made for calls, and change the sound that a model was trained on.
    const sound = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    if (deviceId) sound.deviceId = { exact: deviceId };
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ audio: sound });
      this.context = new AudioContext();
      await this.context.audioWorklet.addModule("/static/recorder_worklet.js");
    } catch (error) {
      this.close();
      throw new Error(REASONS[error.name] ?? `The microphone cannot be opened: ${error.message}`);
    }
    this.blocks = [];
    this.samples = 0;
    const node = new AudioWorkletNode(this.context, "capture", { numberOfOutputs: 0 });
    node.port.onmessage = ({ data }) => {
      this.blocks.push(data.block);
      this.samples += data.block.length;
      this.onLevel({ rms: data.rms, peak: data.peak, seconds: this.seconds });
    };
    this.context.createMediaStreamSource(this.stream).connect(node);
    this.stream.getAudioTracks()[0].onended = () => this.onEnd();
    await this.context.resume();
  }

  get seconds() {
    return this.samples / this.context.sampleRate;
  }

  get deviceId() {
    return this.stream.getAudioTracks()[0].getSettings().deviceId;
  }

  // End the recording, and return it as a WAV file; null if it has no sample.
  stop() {
    const file = this.samples ? wavOf(this.blocks, this.samples, this.context.sampleRate) : null;
    this.close();
    return file;
  }

  close() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.context?.close();
  }
}

// List the microphones. Their names are empty before the user allowed one.
export async function microphones() {
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices.filter((device) => device.kind === "audioinput" && device.deviceId && device.label);
}

// Make a WAV file of 16-bit mono samples.
function wavOf(blocks, samples, rate) {
  const header = new DataView(new ArrayBuffer(44));
  const text = (at, letters) => [...letters].forEach((letter, place) => header.setUint8(at + place, letter.charCodeAt(0)));
  text(0, "RIFF");
  header.setUint32(4, 36 + 2 * samples, true);
  text(8, "WAVEfmt ");
  header.setUint32(16, 16, true);
  header.setUint16(20, 1, true); // PCM
  header.setUint16(22, 1, true); // channel
  header.setUint32(24, rate, true);
  header.setUint32(28, 2 * rate, true);
  header.setUint16(32, 2, true);
  header.setUint16(34, 16, true);
  text(36, "data");
  header.setUint32(40, 2 * samples, true);
  return new Blob([header, ...blocks], { type: "audio/wav" });
}
