"""Rows for `Task.sample`: made images with coloured rectangles, of several sizes, in which a tiny model can learn.

Images and masks are PNG files in bytes, as a data set of the Hub holds them. Rows are the same in every call.
"""

from hubtune_plugins.vision.images import as_png


def in_one_colour(count):
    """Images of one colour and a little, whose label is its name."""
    from PIL import Image

    colours, rows = {"red": (220, 40, 30), "green": (40, 200, 60), "blue": (30, 60, 230)}, []
    for index in range(count):
        name = list(colours)[index % 3]
        image = Image.new("RGB", (40 + index % 5, 36 + index % 3), tuple(value + index % 7 for value in colours[name]))
        rows.append({"image": {"bytes": as_png(image)}, "label": name})
    return rows


def with_boxes(count):
    """Images with a red and a blue box on grey; objects: {"bbox": [[x, y, width, height]], "category": [name]}."""
    from PIL import Image

    colours, rows = {"red": (230, 30, 30), "blue": (30, 30, 230)}, []
    for index in range(count):
        image, objects = Image.new("RGB", (64, 48 + 16 * (index % 2)), (200, 200, 200)), {"bbox": [], "category": []}
        for number, (name, colour) in enumerate(colours.items()):
            x, y, w, h = 4 + 32 * number + index % 5, 4 + 3 * index % 17, 16 + index % 3, 18 + index % 4
            image.paste(colour, (x, y, x + w, y + h))
            objects["bbox"].append([x, y, w, h])
            objects["category"].append(name)
        rows.append({"image": {"bytes": as_png(image)}, "objects": objects})
    return rows


def with_masks(count):
    """Images with a red and a green box on blue; the mask holds 1 and 2 where they are, and 0 elsewhere."""
    from PIL import Image

    rows = []
    for index in range(count):
        size = (48 + index % 2 * 16, 40)
        image, mask = Image.new("RGB", size, (30, 40, 60)), Image.new("L", size, 0)
        for number, colour in ((1, (220, 60, 40)), (2, (60, 220, 80))):
            box = (2 + 22 * (number - 1), 4 + index % 7, 20 + 22 * (number - 1), 26 + index % 5)
            image.paste(colour, box)
            mask.paste(number, box)
        rows.append({"image": {"bytes": as_png(image)}, "mask": {"bytes": as_png(mask)}})
    return rows
