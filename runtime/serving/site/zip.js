"use strict";
/** A ZIP archive of blobs, stored as they are: pictures are compressed already. `files` are pairs of name and blob. */
const zip = (() => {
  const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
    for (let k = 0; k < 8; k += 1) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
    return n;
  });

  async function checksum(blob) {
    let crc = 0xffffffff;
    const reader = blob.stream().getReader();
    for (let { done, value } = await reader.read(); !done; { done, value } = await reader.read()) {
      for (const byte of value) crc = TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
    }
    return ~crc >>> 0;
  }

  /** Numbers as little-endian fields of 2 or 4 bytes: [size, value], ... */
  function fields(...pairs) {
    const view = new DataView(new ArrayBuffer(pairs.reduce((sum, [size]) => sum + size, 0)));
    let at = 0;
    for (const [size, value] of pairs) {
      if (size === 2) view.setUint16(at, value, true);
      else view.setUint32(at, value, true);
      at += size;
    }
    return view.buffer;
  }

  return async (files) => {
    const parts = [], directory = [];
    let offset = 0;
    for (const [name, blob] of files) {
      const bytes = new TextEncoder().encode(name);
      // Version 2.0, names in UTF-8, stored, 1 January 1980, checksum, sizes, length of the name.
      const common = [
        [2, 20], [2, 0x800], [2, 0], [2, 0], [2, 33], [4, await checksum(blob)],
        [4, blob.size], [4, blob.size], [2, bytes.length], [2, 0],
      ];
      parts.push(fields([4, 0x04034b50], ...common), bytes, blob);
      directory.push(
        fields([4, 0x02014b50], [2, 20], ...common, [2, 0], [2, 0], [2, 0], [4, 0], [4, offset]), bytes,
      );
      offset += 30 + bytes.length + blob.size;
    }
    const size = directory.reduce((sum, part) => sum + part.byteLength, 0);
    const end = fields(
      [4, 0x06054b50], [2, 0], [2, 0], [2, files.length], [2, files.length], [4, size], [4, offset], [2, 0],
    );
    return new Blob([...parts, ...directory, end], { type: "application/zip" });
  };
})();
