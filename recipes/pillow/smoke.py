"""Makes a picture, writes on it, shrinks it, saves it as three formats."""

import io

from PIL import Image, ImageDraw, ImageFilter, ImageFont

picture = Image.new("RGB", (640, 480), "navy")
draw = ImageDraw.Draw(picture)
draw.ellipse((100, 100, 300, 300), fill="white")
draw.text((10, 10), "Text", font=ImageFont.load_default(size=24), fill="yellow")
small = picture.filter(ImageFilter.GaussianBlur(1)).resize((160, 120), Image.Resampling.LANCZOS)
for name in ("JPEG", "PNG", "WEBP"):
    file = io.BytesIO()
    small.save(file, name)
    with Image.open(file) as again:
        again.load()
        assert (again.format, again.size) == (name, (160, 120))
assert picture.crop((0, 0, 100, 50)).getcolors(10_000)[0][1] != (0, 0, 0)
