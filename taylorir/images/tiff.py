"""TIFF without metadata, and with the kinds of 16-bit pixels that Pillow's own reader lacks."""

from __future__ import annotations

import sys

from PIL import ExifTags, TiffImagePlugin as tiff

_PIXEL_TAGS = frozenset(
    (
        tiff.IMAGEWIDTH,
        tiff.IMAGELENGTH,
        tiff.BITSPERSAMPLE,
        tiff.COMPRESSION,
        tiff.PHOTOMETRIC_INTERPRETATION,
        tiff.FILLORDER,
        tiff.STRIPOFFSETS,
        tiff.SAMPLESPERPIXEL,
        tiff.ROWSPERSTRIP,
        tiff.STRIPBYTECOUNTS,
        tiff.PLANAR_CONFIGURATION,
        tiff.PREDICTOR,
        tiff.COLORMAP,
        tiff.TILEWIDTH,
        tiff.TILELENGTH,
        tiff.TILEOFFSETS,
        tiff.TILEBYTECOUNTS,
        tiff.EXTRASAMPLES,
        tiff.SAMPLEFORMAT,
        tiff.JPEGTABLES,
        tiff.YCBCRSUBSAMPLING,
    )
)


class TiffReader(tiff.TiffImageFile):
    """Pillow's reader, told to leave alone what does not describe pixels.

    Attributes:
        bits: of a sample in the file.
        white_is_zero: grey of more than 8 bits is to be inverted.
        grey_and_alpha: 16-bit grey and alpha, handed out as the four bytes of a pixel.
        orientation: value of the EXIF tag, whatever its type; not applied.
        profile: value of the tag of the colour profile, whatever its type.
    """

    bits = 8
    white_is_zero = False
    grey_and_alpha = False
    orientation: object = None
    profile: object = None

    def _setup(self) -> None:
        tags = self.tag_v2
        self.orientation = _value(tags, ExifTags.Base.Orientation)
        self.profile = _value(tags, tiff.ICCPROFILE)
        for tag in set(tags) - _PIXEL_TAGS:
            del tags[tag]
        bits = tags.get(tiff.BITSPERSAMPLE, (1,))
        self.bits = max(bits)
        photometric = tags.get(tiff.PHOTOMETRIC_INTERPRETATION, 0)
        planes = tags.get(tiff.PLANAR_CONFIGURATION, 1) == 2 and len(bits) > 1
        if photometric in (0, 1) and self.bits > 8:
            self.white_is_zero = photometric == 0
            tags[tiff.PHOTOMETRIC_INTERPRETATION] = 1
            if tuple(bits) == (16, 16) and not planes:
                self.grey_and_alpha = True
                tags[tiff.PHOTOMETRIC_INTERPRETATION] = 2
                tags[tiff.BITSPERSAMPLE] = (8, 8, 8, 8)
                tags[tiff.SAMPLESPERPIXEL] = 4
                tags[tiff.SAMPLEFORMAT] = (1,)
                tags[tiff.EXTRASAMPLES] = (2,)
        super()._setup()
        if planes and self.bits > 8:
            if self.use_load_libtiff:
                raise ValueError("16-bit channels in compressed planes; save it with interleaved channels")
            suffix = ";16L" if self.little_endian else ";16B"
            self.tile = [
                tile._replace(args=(tile.args[0] + suffix, *tile.args[1:]))  # Pillow takes them for 8-bit
                for tile in self.tile
            ]

    @property
    def little_endian(self) -> bool:
        """Whether the decoder hands out the lower byte of a sample first."""
        return sys.byteorder == "little" if self.use_load_libtiff else self.tag_v2.prefix == tiff.II

    def load_end(self) -> None:
        """Pillow's own reads the EXIF block and turns the picture by it."""


def _value(tags: tiff.ImageFileDirectory_v2, tag: int) -> object:
    try:
        return tags.get(tag)
    except Exception:  # Pillow has no one type for a value that it cannot read
        return None
