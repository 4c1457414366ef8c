"""Every word of ours on the pages, in Chinese and English; which of the two is the session's choice.

What the API says (errors, reasons of a failed index) is shown as the API words it and does not stand here.
"""

from typing import Literal, NamedTuple

import streamlit as st

Language = Literal["zh", "en"]
LANGUAGES: dict[Language, str] = {"zh": "中文", "en": "English"}
LANGUAGE_KEY, KEPT_LANGUAGE_KEY = "language", "language_kept"


class Text(NamedTuple):
    zh: str
    en: str


def session_language() -> Language:
    """The switch's, or what it was: now and then Streamlit begins a run with nothing chosen there, which was seen on a
    busy machine."""
    language: Language = st.session_state.get(LANGUAGE_KEY) or st.session_state[KEPT_LANGUAGE_KEY]
    return language


def t(key: str, **values: object) -> str:
    """The text of this key in the session's language, its placeholders filled."""
    text: str = getattr(TEXTS[key], session_language())
    return text.format(**values)


# Clicked on the text pages to try a query; both languages are always offered, since both find the same products.
EXAMPLE_QUERIES = (
    "红色布艺沙发",
    "木头椅子",
    "带花的盆栽",
    "银色台灯",
    "a white bookcase",
    "round wooden table",
    "blue car",
)

EXAMPLE_PROMPTS = ("红色的沙发", "蓝色的椅子", "白色书柜", "green armchair", "round wooden table", "a lamp")

# What a file to be imported may have: its columns, and one to begin with.
IMPORT_COLUMNS: dict[Language, list[tuple[str, str]]] = {
    "zh": [
        ("货号（sku）", "商品自己的编号，各不相同；按文件更新时据此认出商品"),
        ("标题（title）", "新商品必填"),
        ("分类（category）", "可不填"),
        ("价格（price）", "可写成 1299、￥1,299.00 或 1299元"),
        ("图片（image）", "ZIP 里的路径或允许的网址；新商品必填。多张用 | 隔开，最多 9 张，第一张是主图"),
        ("SPU（group_id）", "同一款商品的各个款式（颜色、尺寸……）填同一个组号，搜索时可以每组只显示一件"),
        ("属性（attributes）", "JSON 对象，会取代已有的全部属性；一般不需要这一列"),
        ("其他任何列", "成为同名的属性，如 颜色、材质；没有这一列的属性保持不变"),
    ],
    "en": [
        ("sku", "your own key, no two the same; an update knows the product by it"),
        ("title", "needed for a new product"),
        ("category", "may be empty"),
        ("price", "1299, $1,299.00 and the like"),
        (
            "image",
            "a path in the ZIP, or an allowed address; needed for a new product. Several (up to 9) have | between "
            "them, the main one first",
        ),
        (
            "group_id (SPU)",
            "the same for all variants of one product (colours, sizes, ...); a search can show one of each group",
        ),
        ("attributes", "a JSON object in place of all attributes that are there; seldom needed"),
        ("any other column", "becomes an attribute of that name, such as color; attributes without a column stay"),
    ],
}
IMPORT_TEMPLATES: dict[Language, str] = {
    "zh": (
        "货号,标题,分类,价格,图片,SPU,颜色,材质\r\n"
        "SOFA-1-RED,布艺沙发 红色,沙发,1299.00,images/sofa-1-red.jpg,SOFA-1,红,布艺\r\n"
        "SOFA-1-BLUE,布艺沙发 蓝色,沙发,1299.00,images/sofa-1-blue.jpg|images/sofa-1-side.jpg,SOFA-1,蓝,布艺\r\n"
    ),
    "en": (
        "sku,title,category,price,image,group_id,color,material\r\n"
        "SOFA-1-RED,fabric sofa red,sofas,1299.00,images/sofa-1-red.jpg,SOFA-1,red,fabric\r\n"
        "SOFA-1-BLUE,fabric sofa blue,sofas,1299.00,images/sofa-1-blue.jpg|images/sofa-1-side.jpg,SOFA-1,blue,"
        "fabric\r\n"
    ),
}

TEXTS: dict[str, Text] = {
    # Frame
    "language": Text("语言", "Language"),
    "nav_search": Text("搜索", "Search"),
    "nav_create": Text("创作", "Create"),
    "nav_catalogue": Text("商品库", "Catalogue"),
    "page_home": Text("首页", "Home"),
    "page_hybrid": Text("搜索商品", "Text → products"),
    "page_image_to_image": Text("以图搜图", "Picture → pictures"),
    "page_text_to_text": Text("以文搜文", "Text → titles"),
    "page_image_to_text": Text("以图搜文", "Picture → titles"),
    "page_text_to_image": Text("以文搜图", "Text → pictures"),
    "page_generate": Text("以文生图", "Text → new picture"),
    "page_manage_products": Text("商品管理", "Products"),
    "page_import_products": Text("批量导入", "Import"),
    "page_edit_product": Text("商品详情", "Product"),
    "api_unreachable": Text(
        "连不上 API。它的地址由设置 API_URL 给出，现在是 `{address}`。",
        "The API can't be reached. The setting API_URL gives its address, now `{address}`.",
    ),
    "api_unreachable_hint": Text(
        "先启动 API：`fastapi run main.py --host 127.0.0.1 --port {port} --no-proxy-headers`；如果它在别处运行，"
        "请在网页进程的环境变量或 `.env` 里把 `API_URL` 设为它的地址，再重启网页。",
        "Start the API: `fastapi run main.py --host 127.0.0.1 --port {port} --no-proxy-headers`. If it runs elsewhere, "
        "set `API_URL` to its address in the environment of these pages or in `.env`, and start the pages again.",
    ),
    "api_key": Text("API 密钥", "API key"),
    "api_key_not_ascii": Text("这不是 API 密钥：密钥里没有中文和全角字符。", "That is no API key, which is all ASCII."),
    "api_key_hint": Text(
        "请在侧栏填写 API 密钥，只在这次打开的页面里使用；运行本服务的人可以给您一个。",
        "Give an API key in the side bar; it is used in this tab alone. Whoever runs this service can make you one.",
    ),
    "try_again": Text("重试", "Try again"),
    "demo_models_banner": Text(
        "演示模型：当前使用随项目附带的小模型，效果不代表正式模型。",
        "Demo models in use: small models that ship with the project; production models find far better.",
    ),
    "demo_models_how_to_switch": Text(
        "换成 Chinese-CLIP 与 BGE 这样的正式模型：用 `python cli.py reindex` 重建索引，再改设置，步骤见 README。",
        "To switch to production models such as Chinese-CLIP and BGE, build the index again with "
        "`python cli.py reindex`, and change the settings afterwards; the README has the steps.",
    ),
    # Home
    "home_title": Text("图文：多模态商品搜索", "Tuwen: multimodal product search"),
    "home_intro": Text(
        "放入商品的标题和图片，就能按含义搜索：用图找图、用文找文，也能图文互搜。中文优先，也支持英文。",
        "Put in products with a title and a picture, and search them by meaning: pictures by pictures, titles by "
        "titles, and each by the other. Chinese first, English too.",
    ),
    "home_hybrid": Text("按含义、按词、按图片一起找。", "By meaning, by words and by pictures at once."),
    "home_image_to_image": Text("哪些商品和这张图相像？", "Which products look like this picture?"),
    "home_text_to_text": Text("哪些标题说的是同一个意思？", "Which titles mean the same?"),
    "home_image_to_text": Text("哪些标题符合这张图？", "Which titles fit this picture?"),
    "home_text_to_image": Text("哪些图片符合这句话？", "Which pictures fit this description?"),
    "home_generate": Text("按标题画一张商品图。", "Draw a product picture for a title."),
    "home_import_products": Text("用文件导入商品和图片。", "Take in a file of products and pictures."),
    "home_manage_products": Text("添加、修改、删除商品，查看索引状态。", "Add, change and delete products."),
    "products_total": Text("商品", "Products"),
    "products_pending": Text("等待索引", "Waiting"),
    "products_failed": Text("索引失败", "Failed"),
    "health_title": Text("各部分的状态", "Health of the parts"),
    "health_ok": Text("全部正常", "Everything is up"),
    "health_degraded": Text("有部分不可用", "Some parts are down"),
    "component_database": Text("数据库", "Database"),
    "component_vector_db": Text("向量库", "Vector database"),
    "component_queue": Text("消息队列", "Message queue"),
    "component_models": Text("模型", "Models"),
    "component_image_store": Text("图片存储", "Image store"),
    "component_disk": Text("磁盘空间", "Room on the disk"),
    "component_indexing": Text("索引进程", "Processes that index"),
    "component_drawing": Text("绘图进程", "Processes that draw"),
    "component_degraded": Text("有问题", "in trouble"),
    "component_ok": Text("正常", "up"),
    "component_down": Text("不可用", "down"),
    "fact_api": Text("API 地址", "API address"),
    "fact_version": Text("版本", "Version"),
    "fact_index": Text("当前索引", "Active index"),
    "fact_models": Text("模型", "Models"),
    # Queries
    "ask_image_to_image": Text(
        "上传一张图片，或选一件库里的商品，找出样子相像的商品。",
        "Upload a picture, or choose a product of the catalogue, and see the products that look like it.",
    ),
    "ask_hybrid": Text(
        "输入商品、品牌、型号或描述：按含义、按词、按图片一起找。拼音、错一个字也能找到。",
        "Write a product, a brand, a model number or a description: by meaning, words and pictures at once.",
    ),
    "ask_text_to_text": Text(
        "输入一句话，找出意思相近的商品标题，不要求用词相同。",
        "Write a few words and find the titles that mean the same, in whatever words.",
    ),
    "ask_image_to_text": Text(
        "上传一张图片，或选一件库里的商品，找出最符合它的标题。",
        "Upload a picture, or choose a product of the catalogue, and see the titles that fit it best.",
    ),
    "ask_text_to_image": Text(
        "用一句话描述想找的商品，找出符合描述的图片。",
        "Describe a product and see the pictures that fit.",
    ),
    "query_text": Text("想找什么", "What to look for"),
    "query_text_placeholder": Text("例如：红色布艺沙发", "For example: red fabric sofa"),
    "search": Text("搜索", "Search"),
    "examples": Text("试一试", "Try one"),
    "query_source": Text("用什么来搜", "Search by"),
    "source_upload": Text("上传图片", "An upload"),
    "source_product": Text("库里的商品", "A product"),
    "upload_picture": Text("图片", "Picture"),
    "find_product": Text("按标题或 SKU 查找", "Find by title or SKU"),
    "choose_product": Text("商品", "Product"),
    "choose_product_placeholder": Text("选一件商品", "Choose a product"),
    "query_is_product": Text("与这件商品比较：{title}", "Compared with this product: {title}"),
    "query_words": Text("还要（可不填）", "But also (may stay empty)"),
    "query_words_placeholder": Text("例如：红色", "For example: red"),
    "query_is_upload": Text("用这张图片搜索", "Searched by this picture"),
    # Options
    "options": Text("数量与显示方式", "Number and view"),
    "top_k": Text("每次显示几个", "Hits at a time"),
    "price_min": Text("最低价", "Lowest price"),
    "price_max": Text("最高价", "Highest price"),
    "search_sort_help": Text(
        "除“最相近”外，都是把符合条件、最相近的 1,000 件重新排序。",
        "Other orders than by relevance put the nearest 1,000 that fit in another order, and show no others.",
    ),
    "fold": Text("相同图片只显示一件", "Fold the same picture"),
    "fold_help": Text(
        "主图相同的商品（重新保存、缩放、轻微裁剪或加了水印）只显示最相近的一件。",
        "Of products with the same picture (saved anew, scaled, cropped a little, with a mark) the nearest is shown.",
    ),
    "has_duplicates": Text(
        "已有商品使用同一张图片：{products}。", "Other products have this picture already: {products}."
    ),
    "by_group": Text("每组只显示一件", "One of each group"),
    "by_group_help": Text(
        "组号（SPU）相同的商品是同一款的不同款式，只显示其中最相近的一件。",
        "Products of one group (SPU) are variants; of each group the nearest one is shown.",
    ),
    "variants": Text("{count:,} 个款式", "{count:,} variants"),
    "variants_title": Text("{group_id} 的各个款式", "Variants of {group_id}"),
    "variants_shown": Text("共 {total:,} 件，显示前 {shown} 件。", "The first {shown} of {total:,}."),
    "group_fact": Text("组号 {group_id}", "group {group_id}"),
    "facet_category": Text("分类", "Category"),
    "facet_price": Text("价格", "Price"),
    "facet_more": Text("还有 {count:,} 个", "{count:,} more"),
    "facet_others": Text("其他", "others"),
    "facet_other": Text("另有 {count:,} 件是更少见的值。", "{count:,} have rarer values."),
    "facet_other_category": Text("其他分类", "Another category"),
    "facet_member": Text("含 {value}", "has {value}"),
    "facets_of_all": Text("按符合条件的全部 {count:,} 件统计", "Counted over all {count:,} that fit"),
    "facets_of_nearest": Text("按最相近的 {count:,} 件统计", "Counted over the nearest {count:,}"),
    "facets_unknown": Text("暂时无法统计各项数量。", "Nothing can be counted just now."),
    "filter_remove": Text("去掉这个条件", "Take this filter off"),
    "filters_clear": Text("全部清除", "Clear all"),
    "value_yes": Text("是", "yes"),
    "value_no": Text("否", "no"),
    "view": Text("显示方式", "View"),
    "view_grid": Text("图片", "Grid"),
    "view_list": Text("列表", "List"),
    # Results
    "results": Text("显示 {count} 个结果，用时 {total:.0f} 毫秒", "{count} hits shown, {total:.0f} ms"),
    "understood_wanted": Text("优先：{words}", "Preferred: {words}"),
    "understood_unwanted": Text("排在后面：{words}", "Put last: {words}"),
    "why": Text("为什么", "Why"),
    "why_title": Text("为什么找到：{title}", "Why this was found: {title}"),
    "why_asking": Text("正在查看……", "Looking ..."),
    "why_changed": Text(
        "结果的顺序已经变了，请重新搜索。", "The order of the results has changed meanwhile; search again."
    ),
    "why_behind": Text(
        "各种方式最前面的结果里都没有它。",
        "None of the ways of looking has it among its first.",
    ),
    "why_way": Text("查找方式", "Way of looking"),
    "why_rank": Text("名次", "Rank"),
    "why_score": Text("得分", "Score"),
    "why_share": Text("占相似度", "Share of the score"),
    "way_meaning": Text("标题含义", "Meaning of the title"),
    "way_words": Text("词语", "Words"),
    "way_pictures": Text("图片", "Pictures"),
    "why_boosted": Text(
        "查询中的颜色、材质、不要的东西等把相似度调整为 {score:.3f}，结果按它排列。",
        "What the query names (colours, materials, what is not wanted) makes the score {score:.3f}; hits stand by it.",
    ),
    "why_relevance": Text("相关的可能性：{percent}%", "Likely to be relevant: {percent} %"),
    "why_map": Text(
        "红色处遮住后，图片与查询的相似度下降最多。",
        "Red: where the picture is less like the query once that is hidden.",
    ),
    "why_no_map": Text("现在看不到图片的哪一部分符合查询。", "What in the picture fits can't be looked at now."),
    "word_separator": Text("、", ", "),
    "results_steps": Text(
        "编码 {encode:.0f} · 向量检索 {vector:.0f} · 读取商品 {metadata:.0f} 毫秒",
        "encode {encode:.0f} · vectors {vector:.0f} · products {metadata:.0f} ms",
    ),
    "score": Text("相似度 {score:.3f}", "score {score:.3f}"),
    "score_help": Text(
        "余弦相似度,-1 到 1;按词也按含义搜索时为名次融合的份额,0 到 1。越大越相近",
        "Cosine similarity, -1 to 1; by words and meaning, a share by the ranks in both, 0 to 1. Higher is closer",
    ),
    "matched_words": Text("含：{words}", "has: {words}"),
    "more_results": Text("更多结果", "More results"),
    "no_more_results": Text("没有更多结果了", "That is all"),
    "nothing_fits": Text("没有合适的商品。", "Nothing fits."),
    "show_nearest": Text("仍然显示最接近的 {count} 件", "Show the nearest {count} all the same"),
    "no_hits": Text("没有找到结果。", "Nothing was found."),
    "no_hits_filtered": Text(
        "没有符合筛选条件的结果。去掉一些条件，或放宽价格再试。",
        "Nothing fits the filters. Take some off, or try wider prices.",
    ),
    "no_hits_empty": Text(
        "商品库还是空的，先添加几件商品吧。", "The catalogue is still empty. Add some products first."
    ),
    "no_hits_pending": Text(
        "{count} 件商品还在等待索引，完成后就能搜到。",
        "{count} products are still waiting for the index; they can be found once it is done.",
    ),
    "similar": Text("找相似", "Similar"),
    "details": Text("详情", "Details"),
    # Products
    "products_intro": Text(
        "添加、修改、删除商品，查看索引状态。", "Add, change and delete products, see their index status."
    ),
    "add_product": Text("添加商品", "Add a product"),
    "refresh": Text("刷新", "Refresh"),
    "reindex": Text("重新索引", "Index again"),
    "list_search": Text("标题、SKU 或组号", "Title, SKU or group"),
    "list_status": Text("索引状态", "Index status"),
    "list_sort": Text("排序", "Sort by"),
    "status_all": Text("全部", "All"),
    "status_pending": Text("等待索引", "pending"),
    "status_indexed": Text("已索引", "indexed"),
    "status_failed": Text("索引失败", "failed"),
    "sort_relevance": Text("最相近", "Relevance"),
    "sort_newest": Text("最新添加", "Newest"),
    "sort_oldest": Text("最早添加", "Oldest"),
    "sort_updated": Text("最近修改", "Last changed"),
    "sort_title": Text("标题", "Title"),
    "sort_price_up": Text("价格从低到高", "Price, lowest first"),
    "sort_price_down": Text("价格从高到低", "Price, highest first"),
    "list_empty": Text("没有符合条件的商品。", "No product fits."),
    "list_pages": Text("第 {page} / {pages} 页，共 {total} 件", "Page {page} of {pages}, {total} products"),
    "previous_page": Text("上一页", "Previous"),
    "next_page": Text("下一页", "Next"),
    "pending_now": Text("{count} 件商品正在等待索引……", "{count} products are waiting for the index …"),
    "pending_done": Text("索引已全部完成，刷新可看到最新状态。", "All are indexed now; refresh to see it."),
    "field_title": Text("标题（必填）", "Title (required)"),
    "field_sku": Text("SKU", "SKU"),
    "field_category": Text("分类", "Category"),
    "field_price": Text("价格", "Price"),
    "field_group_id": Text("组号（SPU）", "Group (SPU)"),
    "group_id_help": Text(
        "同一款商品的各个款式（颜色、尺寸……）填同一个组号，搜索时可以每组只显示一件。",
        "The same for all variants of one product (colours, sizes, ...); a search can show one of each group.",
    ),
    "same_group": Text("同组的商品：{group_id}", "Products of the group {group_id}"),
    "field_attributes": Text("属性（每行一个）", "Attributes (one a line)"),
    "attributes_placeholder": Text("颜色: 红\n座位数: 3", "color: red\nseats: 3"),
    "attributes_help": Text(
        '每行写“名称: 值”。3 是数字，true 和 false 是真假，["新品", "热卖"] 是列表，其余是文字；'
        '要把数字当作文字，加引号："0123"。',
        'A line is "name: value". 3 is a number, true and false are what they say, ["new", "sale"] is a list, all else '
        'is a text; a number in quotes is a text, too: "0123".',
    ),
    "attributes_line": Text("这一行不是“名称: 值”：{line}", 'This line is no "name: value": {line}'),
    "field_picture": Text("图片（必填）", "Picture (required)"),
    "field_new_picture": Text("新图片（不选则保留原图）", "New picture (none keeps the old one)"),
    "field_further_pictures": Text("更多图片（合计最多 9 张）", "More pictures (9 in all)"),
    "make_main": Text("设为主图", "Make it the main one"),
    "remove_picture": Text("删除图片 {position}", "Remove picture {position}"),
    "picture_alt": Text("图片 {position}", "Picture {position}"),
    "hit_picture": Text("图 {position}/{count}", "picture {position} of {count}"),
    "save_product": Text("添加", "Add"),
    "save_changes": Text("保存修改", "Save changes"),
    "clear_hint": Text("清空一项再保存，就会删除这一项。", "Empty a field and save to clear it."),
    "nothing_changed": Text("没有修改。", "Nothing was changed."),
    "indexing": Text("已保存，正在建立索引……", "Saved. Waiting for the index …"),
    "now_indexed": Text(
        "商品 {product_id} 已建立索引，可以搜到了。", "Product {product_id} is indexed and can be found."
    ),
    "still_pending": Text(
        "商品 {product_id} 已保存，但 {seconds} 秒后仍在等待索引。它不会丢失；请看后台任务是否在运行。",
        "Product {product_id} is saved and still waits for the index after {seconds} s. It won't be lost; see whether "
        "the worker is running.",
    ),
    "index_failed": Text(
        "商品 {product_id} 已保存，但建立索引失败：", "Product {product_id} is saved, but indexing failed:"
    ),
    "back_to_list": Text("返回商品列表", "Back to the list"),
    "product_heading": Text("商品 {product_id}", "Product {product_id}"),
    "fact_picture": Text("图片", "Picture"),
    "fact_milvus_id": Text("向量库 ID", "Milvus id"),
    "fact_created": Text("添加时间", "Created"),
    "fact_updated": Text("修改时间", "Changed"),
    "fact_indexed": Text("索引时间", "Indexed"),
    "delete_product": Text("删除商品", "Delete"),
    "delete_title": Text("删除商品 {product_id}？", "Delete product {product_id}?"),
    "delete_warning": Text(
        "删除后立刻搜不到，且不能恢复：", "It is gone from search at once and can't be brought back:"
    ),
    "delete_confirm": Text("确认删除", "Delete it"),
    "cancel": Text("取消", "Cancel"),
    # Generation
    "ask_generate": Text(
        "写出商品的标题，模型会画一张图；旁边是商品库里和它最像的商品，满意就存为商品草稿。",
        "Write a product's title and a model draws it; beside it stand the products that look most like it. Keep what "
        "you like as a draft product.",
    ),
    "prompt": Text("提示词", "Prompt"),
    "prompt_placeholder": Text("例如：红色的布艺沙发", "For example: a red fabric sofa"),
    "negative_prompt": Text("不要出现的内容", "What it should not show"),
    "generate_options": Text("张数、尺寸与步数", "Number, size and steps"),
    "num_images": Text("张数", "Pictures"),
    "seed": Text("种子", "Seed"),
    "seed_help": Text(
        "相同的种子画出相同的图；留空则随机。", "The same seed draws the same picture; empty: a random one."
    ),
    "width": Text("宽（像素）", "Width (pixels)"),
    "height": Text("高（像素）", "Height (pixels)"),
    "steps": Text("去噪步数", "Steps"),
    "guidance": Text("引导强度", "Guidance"),
    "model_default": Text("留空则由模型决定。", "Empty: as the model has it."),
    "draw": Text("开始绘制", "Draw"),
    "job_queued": Text("排队中，前面还有 {jobs_before} 个任务", "Waiting, {jobs_before} jobs in front"),
    "job_running": Text("绘制中 {percent}%", "Drawing {percent} %"),
    "job_cancelled": Text("任务已取消。", "The job was cancelled."),
    "image_facts": Text(
        "AI 生成 · 种子 {seed} · 与提示词的相符度 {agreement:.3f}",
        "AI-generated · seed {seed} · agreement with the prompt {agreement:.3f}",
    ),
    "similar_unknown": Text(
        "向量数据库暂时无法访问,稍后刷新即可看到相近的商品",
        "The vector database can't be reached just now; reload later",
    ),
    "similar_products": Text("相近的商品", "Products that look like it"),
    "save_as_product": Text("存为商品", "Save as product"),
    "deleted": Text("商品 {product_id} 已删除。", "Product {product_id} is deleted."),
    # Import
    "import_help": Text("文件里可以有哪些列", "What columns a file may have"),
    "import_template": Text("下载模板（CSV）", "Download a template (CSV)"),
    "import_template_name": Text("商品导入模板.csv", "products-template.csv"),
    "import_intro": Text(
        "上传 CSV、XLSX、JSON lines，或把它和图片打成一个 ZIP。第一行是列名（如 货号、标题、分类、价格、图片、SPU），"
        "编码自动识别。",
        "Upload CSV, XLSX or JSON lines, or a ZIP of one of them and its pictures. The first line names the columns "
        "(such as sku, title, category, price, image, group_id); the encoding is found out.",
    ),
    "import_file": Text("文件", "File"),
    "import_file_help": Text(
        "更大的文件请用命令行：python cli.py import", "For larger files there is the command line: python cli.py import"
    ),
    "import_mode": Text("已有的货号", "Skus that are there"),
    "import_mode_create": Text("保持不变，只新建", "stay as they are; only new ones are made"),
    "import_mode_upsert": Text("按文件更新", "are changed as the file says"),
    "import_mode_replace_all": Text(
        "按文件更新，并删除文件里没有的商品", "are changed, and products that the file lacks are deleted"
    ),
    "import_mask": Text(
        "给标题、分类和属性里的电话、身份证号、邮箱打码",
        "Mask phone and ID numbers and mail addresses in titles, categories and attributes",
    ),
    "import_dry_run": Text("试运行：只统计，不改动", "Dry run: count only, and change nothing"),
    "import_start": Text("开始导入", "Import"),
    "import_no_file": Text("请先选择文件。", "Choose a file first."),
    "import_sending": Text("正在上传 ...", "Uploading ..."),
    "import_queued": Text("等待中", "waiting"),
    "import_running": Text("导入中", "importing"),
    "import_done": Text("已完成", "done"),
    "import_failed": Text("失败", "Failed"),
    "import_cancelled": Text("已取消，已导入的保留", "cancelled; what is in stays"),
    "import_rows": Text("已读 {rows:,} 行", "{rows:,} rows read"),
    "import_rate": Text("每秒 {rows:,} 行", "{rows:,} rows/s"),
    "import_created": Text("新建", "Created"),
    "import_updated": Text("更新", "Updated"),
    "import_unchanged": Text("未变", "Unchanged"),
    "import_deleted": Text(
        "删除了 {count:,} 件文件中没有的商品。", "{count:,} products that the file lacks were deleted."
    ),
    "import_would_delete": Text(
        "将会删除 {count:,} 件文件中没有的商品。", "{count:,} products that the file lacks would be deleted."
    ),
    "import_may_delete": Text("最多可以删除 {count:,} 件。", "{count:,} may go at most."),
    "import_allow_deletes": Text(
        "最多删除百分之几的商品（不填：十分之一）", "How many percent of all products may be deleted (empty: a tenth)"
    ),
    "import_allow_deletes_help": Text(
        "仅用于“并删除文件里没有的商品”。不填时，商品很少的目录最多删除 10 件且不超过一半；要允许全部删除，填 100。",
        "For the way that deletes what the file lacks. Empty, ten of few products may go, and no more than half; with "
        "100 all may.",
    ),
    "import_would_fit": Text("所有行都可以导入。", "All rows would be in."),
    "import_was_dry": Text("这是试运行：什么都没有改动。", "It was a dry run: nothing was changed."),
    "import_look": Text(
        "{failed:,} 行没有导入，另有 {warnings:,} 条提醒。下载清单，在表格里改好，再上传一次。",
        "{failed:,} rows are not in, and there are {warnings:,} warnings. Download the list, mend the rows, and upload "
        "them again.",
    ),
    "import_report": Text("下载清单（CSV）", "Download the list (CSV)"),
    "import_all_in": Text("所有行都已导入。", "All rows are in."),
    "import_columns": Text("各列的含义", "What the columns were taken for"),
    "import_column": Text("列", "column"),
    "import_meaning": Text("含义", "meaning"),
    "retry_failed": Text("重新索引所有失败的商品", "Index all that failed again"),
    "retried": Text("{count:,} 件失败的商品已重新排队。", "{count:,} products that failed are queued again."),
}
