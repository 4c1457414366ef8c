"""What errors say of `min_score` and of calibrations, as `messages.py` has it."""

OF_RELEVANCE = (
    (
        "not_calibrated",
        "needs a calibration, and {mode} has none in this index: 'python cli.py calibrate' makes it",
        "需要校准，而这个索引的 {mode} 没有校准：用 python cli.py calibrate 生成",
    ),
    (
        "not_with_sort",
        "goes without sort: the first of another order need not be the nearest",
        "不能与 sort 一起使用：按别的顺序排在前面的不一定最接近",
    ),
    (
        "not_with_products",
        "goes with a text or a picture, not with product_id and terms",
        "只能与文字或图片一起使用，不能与 product_id、terms 一起使用",
    ),
    ("only_with_min_score", "goes with min_score alone", "只能与 min_score 一起使用"),
    (
        "no_such_signal",
        "is of a signal that hits of {mode} have not",
        "是 {mode} 的结果没有的信号的权重",
    ),
    (
        "other_index",
        "is not the index that answers; fit on searches of that one",
        "不是正在使用的索引；请用该索引的搜索结果来拟合",
    ),
)
