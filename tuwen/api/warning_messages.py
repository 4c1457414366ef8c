"""What warnings of imported rows say, in Chinese: as `messages.py`, which puts them to its own."""

OF_WARNINGS = (
    ("personal_data", "has {kinds}, which was masked", "含有{kinds}，已打码"),
    ("personal_data", "has {kinds}, which everybody will see", "含有{kinds}，所有人都看得到"),
    ("double", "is that of line {line}, and so is its category", "与第 {line} 行的标题和分类相同"),
    ("double", "is the very picture of line {line}", "与第 {line} 行是同一张图片"),
    ("double", "looks like the picture of line {line}", "与第 {line} 行的图片很相似"),
)
KINDS = {"a phone number": "电话号码", "an ID number": "身份证号", "a mail address": "邮箱地址", " and ": "、"}
