"""What errors say, as codes with parameters and in Chinese. Errors are raised in English; here is the one table of both.

A sentence is found again by its English pattern. `tests/api/test_messages.py` fails where one of ours is not here.
"""

# ruff: noqa: E501  # a row of the table is a line

import re
from functools import cache, reduce
from typing import Literal, NamedTuple

from tuwen.api.access_messages import OF_ACCESS, WORDS
from tuwen.api.failure_messages import OF_FAILURES
from tuwen.api.health_messages import OF_HEALTH
from tuwen.api.import_messages import OF_IMPORTS
from tuwen.api.library_messages import OF_LIBRARIES
from tuwen.api.relevance_messages import OF_RELEVANCE
from tuwen.api.warning_messages import KINDS, OF_WARNINGS

Language = Literal["en", "zh"]
LONGEST_HEADER = 500
MOST_DIGITS = 15  # which JavaScript reads as they are
LISTS = ("accepted", "allowed")
LONGEST_MESSAGE = 1000  # with what a caller wrote in it, which patterns must not take long for
Parameters = dict[str, int | str]

# Code, English, Chinese. The narrower stands before the wider.
OURS = (
    *OF_ACCESS,
    *OF_RELEVANCE,
    *OF_IMPORTS,
    ("missing_query", "mode {mode} needs exactly one of: {allowed}; this request has none of them.", "{mode} 模式需要且只需要其中一个：{allowed}；请求中一个也没有。"),
    ("other_query", "mode {mode} needs exactly one of: {allowed}; this request has {given}.", "{mode} 模式需要且只需要其中一个：{allowed}；请求中有 {given}。"),
    ("needs_one_query", "mode {mode} needs exactly one of: {allowed}", "{mode} 模式需要且只需要其中一个：{allowed}"),
    ("missing_picture", "is missing; send the picture as a file, or a generated_image_id", "缺少图片；请上传图片文件，或给出 generated_image_id"),
    ("not_a_file", "must be a file, not text; send multipart/form-data", "必须是文件，不能是文字；请用 multipart/form-data 上传"),
    ("twice", "comes twice; send it once", "出现了两次；请只发一次"),
    ("unknown_parameter", "is no parameter; there are none here", "没有这个参数；这里不接受参数"),
    ("unknown_parameter", "is no parameter; there are {known}", "没有这个参数；可用的有 {known}"),
    ("wrong_charset", "is not {charset}; send UTF-8, or declare the charset: multipart/form-data; charset=gb18030", "不是 {charset} 编码；请用 UTF-8，或声明字符集：multipart/form-data; charset=gb18030"),
    ("unknown_charset", "The charset '{charset}' is not known here; send UTF-8.", "不认识字符集 '{charset}'；请用 UTF-8。"),
    ("too_long", "has {length} characters, the limit is {limit}; shorten it", "有 {length} 个字符，上限为 {limit} 个；请缩短"),
    ("too_long", "has over {limit} characters when ㌢ is written as センチ; shorten it", "展开兼容字符（如 ㌢ 写作 センチ）后超过 {limit} 个字符；请缩短"),
    ("too_large", "is over {limit} bytes (IMPORT_MAX_BYTES); send it in several files", "超过 {limit} 字节（IMPORT_MAX_BYTES）；请分成几个文件上传"),
    ("wrong_body", "{method} {path} takes multipart/form-data with a field 'file'.", "{method} {path} 需要 multipart/form-data，文件字段名为 file。"),
    ("unknown_field", "is unknown; the form has a field 'file' alone", "没有这个字段；表单只有 file 一个字段"),
    ("cut_off", "The body ends before the form does.", "请求体在表单结束之前就断了。"),
    ("missing_file", "is missing; send CSV, XLSX, JSON lines, or a ZIP archive with one of them", "缺少文件；请上传 CSV、XLSX、JSON lines，或含有其中一个的 ZIP"),
    ("not_a_form", "The form can't be read: {reason}", "无法读取表单：{reason}"),
    ("no_import", "There is no import job {job_id}.", "没有导入任务 {job_id}。"),
    ("file_columns", "has {count} columns, the limit is {limit}", "有 {count} 列，上限为 {limit} 列"),
    ("file_columns", "has several columns that mean the same: {columns}; keep one", "有几列含义相同：{columns}；请只保留一列"),
    ("file_columns", "must name its columns in the first line, sku (货号) or title (标题) among them; it has {columns}", "第一行必须是列名，其中要有 sku（货号）或 title（标题）；现在是：{columns}"),
    ("file_columns", "has {field} twice, once as {column}", "{field} 出现了两次，其中一次写作 {column}"),
    ("row_cells", "has {cells} cells, and there are {columns} columns", "有 {cells} 个单元格，而只有 {columns} 列"),
    ("row_cells", "has {cell} in a column that has no name", "没有列名的一列里有内容 {cell}"),
    ("missing_sku", "is missing; without one it can't be told which product this is", "缺少货号；没有它就不知道是哪件商品"),
    ("missing_field", "is missing, and no product has this sku yet", "缺少，而且还没有这个货号的商品"),
    ("names_no_sku", "has {count} rows that name no sku (line {lines}), and may be products that it lacks; nothing was deleted: mend them, and import again", "有 {count} 行没有货号（第 {lines} 行），可能正是要删除的商品；什么也没有删除：请补上货号后再导入一次"),
    ("deletes_too_many", "lacks {surplus} of {total} products, and {allowed} may go; nothing was deleted: if they all shall, import again with a larger allow_deletes_percent (--allow-deletes)", "缺少 {total} 件商品中的 {surplus} 件，而最多可以删除 {allowed} 件；什么也没有删除：如果确实要删除，请以更大的 allow_deletes_percent（--allow-deletes）再导入一次"),
    ("only_with_replace_all", "goes with mode=replace_all", "只能与 mode=replace_all 一起使用"),
    ("not_written", "could not be written; something else may change the same product, so import it again", "无法写入：可能另有操作在修改同一件商品；请再导入一次"),
    ("no_number", "is {price}, which is no number", "是 {price}，不是数字"),
    ("too_many_pictures", "names {count} pictures, the limit is {limit}", "写了 {count} 张图片，上限为 {limit} 张"),
    ("no_path", "must be a path or an address", "必须是路径或网址"),
    ("no_archive", "{path} came with no archive that it could be in", "{path} 没有随压缩包一起上传"),
    ("not_in_archive", "{path} is in the archive several times; say in which folder", "{path} 在压缩包里不止一个：请写明在哪个文件夹"),
    ("not_in_archive", "{path} is not in the archive", "压缩包里没有 {path}"),
    ("too_large", "{path} has {size} bytes, the limit is {limit}", "{path} 有 {size} 字节，上限为 {limit}"),
    ("unreadable_file", "{path} can't be read from the archive: {reason}", "无法从压缩包中读取 {path}：{reason}"),
    ("unreadable_file", "{path} can't be read: {reason}", "无法读取 {path}：{reason}"),
    ("other_file", "is {kind}; send CSV, XLSX, JSON lines, or a ZIP archive", "是 {kind}；请上传 CSV、XLSX、JSON lines 或 ZIP"),
    ("file_members", "has {count} files in it, the limit is {limit}", "里面有 {count} 个文件，上限为 {limit}"),
    ("file_members", "must have one file of rows (CSV, XLSX, JSON lines) in it; it has {found}", "里面必须有且只有一个数据文件（CSV、XLSX、JSON lines）；现在有：{found}"),
    ("too_large", "has over {limit} rows, the limit of XLSX", "超过 {limit} 行（XLSX 的上限）"),
    ("too_large", "has a workbook of over {limit} bytes in it; send that by itself", "其中的工作簿超过 {limit} 字节；请单独上传"),
    ("too_large", "has a directory of {size} bytes, the limit is {limit}", "目录有 {size} 字节，上限为 {limit}"),
    ("too_large", "has too much besides its rows (texts, formats, names); save it as CSV", "除行以外的内容（文本、格式、名称）过多；请另存为 CSV"),
    ("unreadable_file", "has a document type declaration in it; save it as CSV", "其中含有文档类型声明（DTD）；请另存为 CSV"),
    ("too_large", "has over {limit} bytes in one row of its sheet; save it as CSV", "工作表中有一行超过 {limit} 字节；请另存为 CSV"),
    ("unknown_encoding", "is neither UTF-8, UTF-16 nor GB18030 (GBK); save it as UTF-8", "不是 UTF-8、UTF-16 或 GB18030（GBK）；请另存为 UTF-8"),
    ("empty_file", "is empty", "是空的"),
    ("json_array", "is one JSON array; write each product as an object in a line of its own", "是一个 JSON 数组；请把每件商品写成单独一行的对象"),
    ("not_an_object", 'must be a JSON object, such as {{"sku": "A1", "title": "..."}}', '必须是 JSON 对象，如 {{"sku": "A1", "title": "..."}}'),
    ("open_quote", "opens a quote that nothing closes", "有一个引号没有闭合"),
    ("not_csv", "is not CSV: {reason}", "不是 CSV：{reason}"),
    ("too_large", "is over {limit} bytes long", "超过 {limit} 字节"),
    ("unreadable_characters", "has characters that can't be read, after {before}", "有无法识别的字符，在 {before} 之后"),
    ("not_json", "are not JSON: {reason}", "不是 JSON：{reason}"),
    ("no_facet", "is no facet; there are category, price, attributes and attributes.NAME", "不是可以统计的分面；可用的有 category、price、attributes 和 attributes.属性名"),
    ("too_many_words", "has over {limit} words; leave some out", "超过 {limit} 个词；请减少"),
    ("too_large", "are over {limit} bytes of JSON; keep fewer", "JSON 超过 {limit} 字节；请减少"),
    ("too_large", "the request is over {limit} bytes; send a smaller picture", "请求超过 {limit} 字节；请换一张小一些的图片"),
    ("control_characters", "has line breaks or other control characters; take them out", "含有换行或其他控制字符；请去掉"),
    ("control_characters", "has control characters; take them out", "含有控制字符；请去掉"),
    ("not_unicode", "has characters that are not Unicode (lone surrogates)", "含有不是 Unicode 的字符（孤立的代理项）"),
    ("invisible", "has nothing that can be seen; write it, or leave it out", "没有任何看得见的内容；请填写，或不填这一项"),
    ("empty", "is empty; write what to search for", "是空的；请写明想找什么"),
    ("not_a_number", "{value} is not a JSON number", "{value} 不是 JSON 数字"),
    ("too_deep", "nest over {limit} lists and objects in each other; flatten them", "列表和对象嵌套超过 {limit} 层；请减少层次"),
    ("integer_too_large", "has an integer of more than 64 bits; write it as a text", "含有超过 64 位的整数；请写成文本"),
    ("too_many", "have over {limit} values in all their conditions; ask for fewer", "所有条件中的值合计超过 {limit} 个；请减少"),
    ("empty_range", "min is above max", "min 大于 max"),
    ("no_condition", "has no condition; give one of {conditions}", "没有条件；请给出其中之一：{conditions}"),
    ("empty_range", "price_min is above price_max", "price_min 大于 price_max"),
    ("needs_one_boost", "needs exactly one of: attribute, freshness_half_life_days", "attribute 与 freshness_half_life_days 需要且只需要其中一个"),
    ("needs_one_term", "needs exactly one of: text, image_base64, image_url, product_id", "text、image_base64、image_url、product_id 需要且只需要其中一个"),
    ("no_weight", "is next to 0; give the term a weight of 0.01 or more, or leave it out", "接近 0；请给出 0.01 以上的权重，或去掉这一项"),
    ("nothing_wanted", "have no weight above 0; say what is wanted, too", "没有大于 0 的权重；请同时给出想要的"),
    ("nothing_left", "cancel each other out; change their weights", "互相抵消了；请改变权重"),
    ("no_words", "goes with one text, not with terms", "只能与单个文本一起使用，不能与 terms 一起"),
    ("no_text", "is no text, and mode text_to_text compares texts alone; the modes of CLIP take both", "不是文本，而 text_to_text 模式只比较文本；CLIP 的各模式两者都可以"),
    ("wrong_pivot", "needs a pivot with an attribute, and with that alone", "有 attribute 时必须给出 pivot，否则不能给出"),
    ("too_large", "has weights of over 1 in all; lower them", "各项 weight 之和超过 1；请调低"),
    ("no_words", "goes with the modes text_to_text and hybrid alone", "只能与模式 text_to_text 和 hybrid 一起使用"),
    ("only_with_fold", "goes with fold alone", "只能与 fold 一起使用"),
    ("same_picture", "is the picture of product {product_id}", "与商品 {product_id} 的图片相同"),
    ("no_report", "There is no report {job_id}.", "没有重复图片报告 {job_id}。"),
    ("only_with_text", "goes with a text alone", "只能与 text 一起使用"),
    ("two_orders", "comes with sort or boost; send one of them", "与 sort 或 boost 同时出现；请只发其中一个"),
    ("switched_off", "is switched off here; have RERANKER_MODEL name a model", "这里没有开启；请在 RERANKER_MODEL 中指定模型"),
    ("two_orders", "comes with sort; send one of the two", "与 sort 同时出现；请只发其中一个"),
    ("needs_one_product", "needs exactly one of: sku, product_id", "sku 与 product_id 需要且只需要其中一个"),
    ("too_far", "is above {limit}; refine the query instead", "超过 {limit}；请改为缩小查询范围"),
    ("not_base64", "is not base64: {reason}", "不是 base64：{reason}"),
    ("not_json", "nests too deep; flatten it", "嵌套太深；请减少层次"),
    ("not_json", "is not JSON: {reason}", "不是 JSON：{reason}"),
    ("not_an_object", 'must be a JSON object, such as {{"颜色": "红"}}', '必须是 JSON 对象，例如 {{"颜色": "红"}}'),
    ("body_not_json", "The body is not JSON: {reason}", "请求体不是 JSON：{reason}"),
    ("body_not_an_object", "The body must be a JSON object.", "请求体必须是 JSON 对象。"),
    ("wrong_body", "{method} {path} takes {accepted}, not '{given}'.", "{method} {path} 接受 {accepted}，不接受 '{given}'。"),
    ("body_did_not_come", "The rest of the body did not come: {silence} s without any of it, or {most} s in all.", "请求体没有传完：{silence} 秒内没有任何数据，或总共超过 {most} 秒。"),
    ("taken", "another product has the sku '{sku}'; change that product, or use another sku", "另一件商品已经使用 sku '{sku}'；请修改那件商品，或换一个 sku"),
    ("no_product", "There is no product {product_id}.", "没有商品 {product_id}。"),
    ("no_job", "There is no generation job {job_id}; results are kept for a set time.", "没有绘图任务 {job_id}；结果只保留一段时间。"),
    ("no_job", "There is no reindex job {job_id}.", "没有更换模型的任务 {job_id}。"),
    ("no_picture", "There is no picture {path}.", "没有图片 {path}。"),
    ("no_generated_picture", "there is no generated picture {image_id}", "没有生成的图片 {image_id}"),
    ("not_an_image_id", "must be the image_id of a generated picture", "必须是某张生成图片的 image_id"),
    ("two_pictures", "comes with a file; send one of the two", "与图片文件同时出现；请只发其中一个"),
    ("over_the_limit", "is over the limit of {limit} pixels", "超过上限 {limit} 像素"),
    ("over_the_limit", "is over the limit of {limit}", "超过上限 {limit}"),
    ("unknown_field", "is unknown; the body has products alone", "没有这个字段；请求体只有 products"),
    ("not_rows", "must be a list of 1 to {limit} rows", "必须是 1 至 {limit} 行的列表"),
    ("no_product", "no product has it", "没有这个商品"),
    ("twice", "is row {row}'s, too; send it once in a call", "与第 {row} 行相同；一次调用中请只发一次"),
    ("no_product", "No product has the sku '{sku}'.", "没有商品使用 sku '{sku}'。"),
    ("missing_picture", "is missing; no product has this sku yet, and each needs one", "缺少图片；还没有商品使用这个 sku，新建必须有图片"),
    ("too_many", "is one too many: a product has {limit} pictures at most", "多了：一件商品最多 {limit} 张图片"),
    ("twice", "is the same picture as another of the product; send each once", "与这件商品的另一张图片相同；每张请只发一次"),
    ("no_picture", "Product {product_id} has no picture {image_id}.", "商品 {product_id} 没有图片 {image_id}。"),
    ("last_picture", "is the only picture, and each product needs one; send another first", "是唯一的图片，而每件商品都需要图片；请先上传另一张"),
    ("wrong_order", "must name each picture of the product once", "必须把这件商品的每张图片各写一次"),
    ("other_sku", "is another than the address's; leave it out", "与地址中的 sku 不同；请不要发送这一项"),
    ("no_version", "There is no such product any more, or not yet.", "这件商品已经不在，或尚未新建。"),
    ("there_already", "There is one already: product {product_id}.", "已经有了：商品 {product_id}。"),
    ("changed_since", "Product {product_id} is at version {version} by now, which is none that If-Match names: read it again, and decide anew.", "商品 {product_id} 现在是第 {version} 版，与 If-Match 所列的都不同：请重新读取，再作决定。"),
    ("wrong_etag", 'must be * or ETags in quotes, as "7-3"', '必须是 *，或带引号的 ETag，如 "7-3"'),
    ("wrong_etag", "must be *", "必须是 *"),
    ("wrong_key", "must be 1 to 255 characters of ASCII without spaces", "必须是 1 至 255 个不含空格的 ASCII 字符"),
    ("key_used", "Another request had this Idempotency-Key; give each a key of its own.", "这个 Idempotency-Key 已用于别的请求；请为每个请求使用不同的键。"),
    ("key_used", "This Idempotency-Key made product {product_id}, which was deleted since.", "这个 Idempotency-Key 新建的商品 {product_id} 已被删除。"),
)  # fmt: skip
# Of `tuwen/pictures/`.
OF_PICTURES = (
    ("too_large", "has {bytes} bytes, the limit is {limit}; send a smaller picture", "有 {bytes} 字节，上限为 {limit}；请换一张小一些的图片"),
    ("too_large", "has more than {limit} bytes", "超过 {limit} 字节"),
    ("too_many_pixels", "has {width} × {height} = {pixels} pixels, the limit is {limit}", "有 {width} × {height} = {pixels} 像素，上限为 {limit}"),
    ("too_many_pixels", "has too many pixels: {reason}", "像素太多：{reason}"),
    ("too_many_pieces", "has too many {what} (more than {limit}); save it anew", "所含的 {what} 太多（超过 {limit}）；请重新保存图片"),
    ("broken", "is broken or cut off: {reason}", "已损坏或不完整：{reason}"),
    ("broken", "can't be decoded: it takes too much memory or time, or crashes its reader", "无法解码：占用的内存或时间太多，或使解码程序崩溃"),
    ("unreadable", "can't be read: {reason}", "无法读取：{reason}"),
    ("not_a_picture", "is {what}, not a picture; send a {accepted} file", "是 {what}，不是图片；请上传 {accepted} 文件"),
    ("not_a_picture", "is not a picture; send a {accepted} file", "不是图片；请上传 {accepted} 文件"),
    ("other_format", "is a {format} file; send a {accepted} file", "是 {format} 文件；请上传 {accepted} 文件"),
    ("private_address", "leads to an address of a private network; IMAGE_URL_PRIVATE_NETWORKS names those that may be reached", "指向内网地址；可以访问的内网由 IMAGE_URL_PRIVATE_NETWORKS 指定"),
    ("too_many_redirects", "leads on more than {limit} times", "重定向超过 {limit} 次"),
    ("answered_compressed", "answered compressed, and was asked not to", "返回了压缩的内容，而请求中要求不压缩"),
    ("not_answered", "answered {status}; it must answer 200 itself", "返回了 {status}；必须由它自己返回 200"),
    ("not_fetched", "can't be fetched within {seconds} s (IMAGE_URL_TIMEOUT_S)", "在 {seconds} 秒内没能下载（IMAGE_URL_TIMEOUT_S）"),
    ("not_fetched", "can't be fetched: {reason}", "无法下载：{reason}"),
    ("switched_off", "is switched off here; send the picture itself, or have IMAGE_URL_HOSTS name the allowed hosts", "这里没有开启；请直接发送图片，或在 IMAGE_URL_HOSTS 中列出允许的主机"),
    ("not_a_url", "is not a URL: {reason}", "不是网址：{reason}"),
    ("host_not_allowed", "must be http or https on one of: {hosts}", "必须是 http 或 https，主机为其中之一：{hosts}"),
)  # fmt: skip


class Said(NamedTuple):
    code: str
    parameters: Parameters
    in_chinese: str


class _Pattern(NamedTuple):
    code: str
    literals: tuple[str, ...]
    """What stands before, between and behind its gaps."""
    names: tuple[str, ...]
    """Of its gaps."""
    quoted: frozenset[str]
    """Those between quotes: texts, whatever they look like."""
    in_chinese: str


@cache
def _patterns() -> list[_Pattern]:
    return [_pattern(*each) for each in (*OURS, *OF_PICTURES, *OF_LIBRARIES, *OF_WARNINGS, *OF_FAILURES, *OF_HEALTH)]


def _pattern(code: str, english: str, chinese: str) -> _Pattern:
    parts = re.split(r"(?<!\{)\{(\w+)\}(?!\})", english)
    literals, names = tuple(part.format() for part in parts[::2]), tuple(parts[1::2])
    quoted = frozenset(name for name, before in zip(names, literals, strict=False) if before.endswith("'"))
    return _Pattern(code, literals, names, quoted, chinese)


def _match(pattern: _Pattern, english: str) -> dict[str, str] | None:
    """What stands in its gaps, each as short as can be. A regular expression does the same, and tries for tens of
    milliseconds at what a caller wrote to that end."""
    *literals, end = pattern.literals
    if not literals:
        return {} if english == end else None
    at, until = len(literals[0]), len(english) - len(end)
    if at > until or not (english.startswith(literals[0]) and english.endswith(end)):
        return None
    gaps = []
    for literal in literals[1:]:
        found = english.find(literal, at, until)
        if found < 0:
            return None
        gaps.append(english[at:found])
        at = found + len(literal)
    return dict(zip(pattern.names, [*gaps, english[at:until]], strict=True))


def find_message(english: str) -> Said | None:
    if len(english) > LONGEST_MESSAGE:
        return None
    for pattern in _patterns():
        if (gaps := _match(pattern, english)) is not None:
            said = {name: value for name, value in gaps.items() if name not in ("s", "more")}
            parameters = {name: value if name in pattern.quoted else _as_number(value) for name, value in said.items()}
            listed = {name: said[name].replace(" or ", " 或 ") for name in LISTS if name in said}
            listed |= {name: WORDS[said[name]] for name in ("kind", "what") if said.get(name) in WORDS}
            if "reason" in said and (inner := find_message(said["reason"])):
                listed["reason"] = inner.in_chinese
            if kinds := said.get("kinds"):
                listed["kinds"] = reduce(lambda text, pair: text.replace(*pair), KINDS.items(), kinds)
            return Said(pattern.code, parameters, pattern.in_chinese.format(**(said | listed)))
    return None


def _as_number(text: str) -> int | str:
    digits = text.replace(",", "")
    is_number = digits.isascii() and digits.removeprefix("-").isdigit() and len(digits) <= MOST_DIGITS
    return int(digits) if is_number else text


def language_of(accept_language: str) -> Language:
    """Which of ours is wanted most (RFC 9110); English where neither is named."""
    best: Language = "en"
    highest = 0.0
    for item in accept_language[:LONGEST_HEADER].lower().split(","):
        tag, _, weight = item.partition(";")
        primary = tag.strip().partition("-")[0]
        try:
            quality = float(weight.strip().removeprefix("q=") or 1)
        except ValueError:
            quality = 0.0
        if primary in ("zh", "en") and quality > highest:
            best, highest = "zh" if primary == "zh" else "en", quality
    return best
