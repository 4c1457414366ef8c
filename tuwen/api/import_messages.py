"""What errors of imported files say, in Chinese: as `messages.py`, which puts them to its own."""

OF_IMPORTS = (
    (
        "picture_not_stored",
        "the picture store does not take this picture; the service's log says why",
        "图片存储没有接收这张图片，原因见服务的日志",
    ),
    ("empty_file", "has nothing in its first visible sheet", "第一个可见的工作表是空的"),
    ("unreadable_file", "is a ZIP archive that can't be read: {reason}", "是无法读取的 ZIP：{reason}"),
    ("unreadable_file", "is no XLSX workbook that can be read: {reason}", "不是可以读取的 XLSX：{reason}"),
    ("file_columns", "can't be used: its first line {reason}", "无法使用，第一行有问题：{reason}"),
    ("not_csv", "has line ends of CR alone; save it with CR LF or LF", "换行只有 CR；请另存为 CR LF 或 LF 换行"),
    (
        "lost_digits",
        "is {value}, a number that a spreadsheet took digits from; format the column as text, and enter it anew",
        "是 {value}：表格软件把它当作数字，丢失了位数；请把这一列设为文本格式后重新填写",
    ),
)
