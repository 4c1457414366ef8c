"""What errors of imported files say, in Chinese: as `messages.py`, which puts them to its own."""

OF_IMPORTS = (
    ("unreadable_file", "is a ZIP archive that can't be read: {reason}", "是无法读取的 ZIP：{reason}"),
    ("unreadable_file", "is no XLSX workbook that can be read: {reason}", "不是可以读取的 XLSX：{reason}"),
    (
        "lost_digits",
        "is {value}, a number that a spreadsheet took digits from; format the column as text, and enter it anew",
        "是 {value}：表格软件把它当作数字，丢失了位数；请把这一列设为文本格式后重新填写",
    ),
)
