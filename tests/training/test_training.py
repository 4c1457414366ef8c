"""The training pipeline's real steps on a few generated pictures and texts: no network, no downloaded weights."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from transformers import AutoModel, AutoProcessor, EfficientNetConfig, EfficientNetModel

from training.alignment import (
    AlignmentSettings,
    Caption,
    CaptionedPicture,
    ClassKnowledge,
    Collection,
    Heads,
    pseudo_pictures,
    train_heads,
)
from training.collect import components, held_out_components
from training.export import assemble_dual_encoder, save_dual_encoder, save_static_text_model
from training.names import DATA, read_imagenet_classes, read_lexicon
from training.pictures import augment, make_thumbnail
from training.report import near_copies, recall_at, unit
from training.sources import stamp_pictures
from training.static_text import StaticSettings, train_static
from training.text_tower import (
    DistillationSettings,
    TextTower,
    TokenTable,
    TuningSettings,
    distil_bag,
    distil_tower,
    embed_texts,
    tune_on_pictures,
)
from training.texts import chinese_nouns, compose_titles, english_nouns, noun_pairs
from training.vision import FEATURE_DIM, compile_encoder, extract_features
from training.vocabulary import build_tokenizer

# OpenVINO's conversion calls what torch and transformers have deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

COLOURS = {
    "红色": ("red", (220, 30, 30)),
    "绿色": ("green", (30, 180, 60)),
    "蓝色": ("blue", (40, 60, 220)),
    "黄色": ("yellow", (240, 220, 40)),
}
SHAPES = {"圆桌": "round table", "方凳": "square stool"}
TITLES = [(f"{zh}{shape}", f"{en} {shape_en}") for zh, (en, _) in COLOURS.items() for shape, shape_en in SHAPES.items()]


def draw(title: str, size: int = 96) -> Image.Image:
    """A transparent picture of what the Chinese title says."""
    image = Image.new("RGBA", (size, size + 20), (0, 0, 0, 0))
    pen = ImageDraw.Draw(image)
    colour = next(rgb for name, (_, rgb) in COLOURS.items() if name in title)
    (pen.ellipse if "圆" in title else pen.rectangle)((20, 20, 76, 76), fill=colour)
    return image


@pytest.fixture(scope="module")
def vision() -> EfficientNetModel:
    """The real architecture, with few blocks and random weights."""
    torch.manual_seed(0)
    config = EfficientNetConfig(
        width_coefficient=1.0, depth_coefficient=1.0, kernel_sizes=[3, 3], in_channels=[32, 16], out_channels=[16, 24],
        strides=[2, 2], num_block_repeats=[1, 1], expand_ratios=[1, 4], depthwise_padding=[], image_size=260,
        hidden_dim=FEATURE_DIM, hidden_size=FEATURE_DIM,  # type: ignore[call-arg]
    )  # fmt: skip
    model = EfficientNetModel(config)
    model.train(False)
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):  # else a random net's features fade to zero
            torch.nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)
    return model


@pytest.fixture(scope="module")
def pictures(vision: EfficientNetModel) -> list[CaptionedPicture]:
    """Three augmented views of each title's picture, encoded."""
    views = [augment(draw(chinese), f"{chinese}:{view}") for chinese, _ in TITLES for view in range(3)]
    features = extract_features(compile_encoder(vision), views).reshape(len(TITLES), 3, FEATURE_DIM)
    return [
        CaptionedPicture(chinese, rows, (Caption(chinese, 2.0), Caption(english)), instance=True)
        for (chinese, english), rows in zip(TITLES, features, strict=True)
    ]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return build_tokenizer([text for title in TITLES for text in title], 6000, list)


def knowledge(collection: Collection) -> ClassKnowledge:
    """A classifier of four classes whose names are the first four texts."""
    generator = torch.Generator().manual_seed(0)
    return ClassKnowledge(torch.randn(4, FEATURE_DIM, generator=generator), torch.zeros(4), [[0], [1], [2], [3]])


@pytest.fixture(scope="module")
def trained(pictures: list[CaptionedPicture], tokenizer: Tokenizer) -> tuple[Heads, TextTower, TokenTable, Collection]:
    """Heads on random text embeddings, then a text tower distilled and tuned."""
    collection = Collection(pictures)
    teacher = torch.randn(len(collection.texts), 32, generator=torch.Generator().manual_seed(1))
    parallel = torch.tensor([[2 * i, 2 * i + 1] for i in range(len(TITLES))])
    known = knowledge(collection)
    text_features = known.text_features(teacher)
    heads = train_heads(
        collection, text_features, known, parallel, AlignmentSettings(steps=60, class_weight=0.01, learning_rate=2e-3)
    )
    with torch.no_grad():
        targets = heads.embed_texts(text_features)
    tokens = TokenTable(tokenizer, collection.texts)
    settings = DistillationSettings(bag_epochs=20, epochs=20)
    words = distil_bag(tokens, tokenizer.get_vocab_size(), targets, settings)
    tower = distil_tower(tokens, tokenizer.get_vocab_size(), targets, words, settings)
    tuning = TuningSettings(steps=20, batch=8, class_names=2, class_weight=0.01)
    tune_on_pictures(tower, heads, collection, tokens, targets, knowledge(collection), tuning)
    return heads, tower, tokens, collection


def test_matching_pictures_and_texts_score_above_mismatches(
    pictures: list[CaptionedPicture], trained: tuple[Heads, TextTower, TokenTable, Collection]
) -> None:
    heads, tower, tokens, collection = trained
    rows = [collection.texts.index(picture.captions[0].text) for picture in pictures]
    texts = embed_texts(tower, tokens, rows)
    with torch.no_grad():
        features = torch.from_numpy(np.stack([picture.features[0] for picture in pictures])).float()
        similarity = texts @ heads.embed_pictures(features).numpy().T
    matching = similarity.diagonal().mean()
    others = similarity[~np.eye(len(similarity), dtype=bool)].mean()
    assert matching > others + 0.1
    assert recall_at(similarity, np.eye(len(similarity), dtype=bool), (1,)).recall[0] >= 75


def test_exported_dual_encoder_gives_the_same_embeddings(
    tmp_path: Path,
    vision: EfficientNetModel,
    tokenizer: Tokenizer,
    trained: tuple[Heads, TextTower, TokenTable, Collection],
) -> None:
    heads, tower, tokens, collection = trained
    expected = embed_texts(tower, tokens, range(4))
    picture = augment(draw(TITLES[0][0]), "export")
    with torch.no_grad():
        features = extract_features(compile_encoder(vision), [picture]).astype(np.float32)
        expected_picture = heads.embed_pictures(torch.from_numpy(features)).numpy()
    model = assemble_dual_encoder(vision, heads.picture, tower, heads.scale.detach())
    save_dual_encoder(model, tokenizer, tmp_path / "clip")

    loaded: Any = AutoModel.from_pretrained(tmp_path / "clip", dtype=torch.float32).eval()
    processor: Any = AutoProcessor.from_pretrained(tmp_path / "clip")  # type: ignore[no-untyped-call]
    words = processor.tokenizer(collection.texts[:4], padding=True, return_tensors="pt")
    pixels = processor.image_processor(images=[picture], return_tensors="pt")
    with torch.no_grad():
        found = loaded.get_text_features(**words).pooler_output.numpy()
        found_picture = loaded.get_image_features(**pixels).pooler_output.numpy()
    np.testing.assert_allclose(unit(found), expected, atol=5e-3)
    np.testing.assert_allclose(unit(found_picture), expected_picture, atol=5e-3)


def test_exported_text_model_tells_parallel_titles_from_others(tmp_path: Path, tokenizer: Tokenizer) -> None:
    texts = [text for title in TITLES for text in title]
    tokens = TokenTable(tokenizer, texts)
    teacher = torch.nn.functional.normalize(torch.randn(len(texts), 32), dim=-1)
    parallel = torch.tensor([[2 * i, 2 * i + 1] for i in range(len(TITLES))])
    words = train_static(tokens, tokenizer.get_vocab_size(), teacher, parallel, StaticSettings(steps=40, dim=16))
    save_static_text_model(words, tokenizer, tmp_path / "bge")
    model = SentenceTransformer(str(tmp_path / "bge"), device="cpu")
    embedded = unit(np.asarray(model.encode(texts), np.float32))
    similarity = embedded[::2] @ embedded[1::2].T
    assert recall_at(similarity, np.eye(len(TITLES), dtype=bool), (1,)).recall[0] >= 75


def test_titles_that_differ_in_one_rare_character_or_number_have_other_tokens(tokenizer: Tokenizer) -> None:
    for one, other in (
        ("红色圆桌 㐂", "红色圆桌 𠮷"),
        ("圆桌 120cm", "圆桌 121cm"),
        ("圆桌 12", "圆桌 21"),
        ("圆桌 A", "圆桌 Å"),
    ):
        ids = [sorted(tokenizer.encode(text, add_special_tokens=False).ids) for text in (one, other)]
        assert ids[0] != ids[1]


def test_pictures_are_white_and_square_and_augmentation_repeats_itself() -> None:
    thumbnail = make_thumbnail_of(draw("红色圆桌"))
    first, again, other = (augment(thumbnail, seed) for seed in ("1", "1", "2"))
    assert first.mode == "RGB"
    assert first.tobytes() == again.tobytes() != other.tobytes()


def make_thumbnail_of(image: Image.Image) -> Image.Image:
    encoded = BytesIO()
    image.save(encoded, "PNG")
    return make_thumbnail(encoded.getvalue())


def test_held_out_components_share_no_name() -> None:
    names = [("chair", "椅子"), ("armchair", "椅子"), ("armchair", "扶手椅"), ("table", "桌子"), ("lamp", "灯")] * 4
    numbers = components(names)
    assert numbers[0] == numbers[1] == numbers[2] != numbers[3]
    held = held_out_components(numbers, 0.4, seed=0, largest=0.5)
    kept = {name for own, number in zip(names, numbers, strict=True) if number not in held for name in own}
    assert not kept & {name for own, number in zip(names, numbers, strict=True) if number in held for name in own}


def test_recall_counts_and_its_chance() -> None:
    similarity = np.array([[0.9, 0.1, 0.2], [0.9, 0.5, 0.7]], np.float32)
    result = recall_at(similarity, np.eye(2, 3, dtype=bool), (1, 3))
    assert result.recall == (50.0, 100.0)
    assert result.random == pytest.approx((100 / 3, 100.0))


def test_near_copies_are_found() -> None:
    trained_on = np.eye(3, dtype=np.float32)
    assert near_copies(np.array([[1, 0.1, 0], [1, 1, 1]], np.float32), trained_on).tolist() == [True, False]


def test_pseudo_pictures_lean_towards_their_class() -> None:
    generator = torch.Generator().manual_seed(0)
    classifier = torch.nn.Linear(16, 3)
    features = torch.rand(50, 16, generator=generator).numpy()
    made = pseudo_pictures(classifier, features, [(Caption(str(i)),) for i in range(3)])
    scores = (
        np.stack([picture.features[0] for picture in made]).astype(np.float32) @ classifier.weight.detach().numpy().T
    )
    assert (scores - scores.mean(0)).argmax(1).tolist() == [0, 1, 2]


def test_untrained_heads_find_the_class_that_a_text_names() -> None:
    """Texts 0 to 3 are the names of four classes; 4 to 7 mean nearly the same."""
    generator = torch.Generator().manual_seed(0)
    names = torch.randn(4, 32, generator=generator)
    embeddings = torch.cat([names, names + 0.1 * torch.randn(4, 32, generator=generator)])
    known = ClassKnowledge(torch.randn(4, FEATURE_DIM, generator=generator), torch.zeros(4), [[0], [1], [2], [3]])
    features = known.text_features(embeddings)
    heads = Heads(FEATURE_DIM, features.shape[1])
    heads.start_from_classifier(known.weight, torch.rand(FEATURE_DIM, generator=generator))
    with torch.no_grad():
        similarity = heads.embed_texts(features) @ heads.embed_pictures(known.weight).T
    assert similarity.argmax(1).tolist() == [0, 1, 2, 3] * 2


def test_stamps_have_short_names_and_are_no_symbols(tmp_path: Path) -> None:
    root = tmp_path / "usr/share/tuxpaint/stamps"
    for name, chinese in (("animals/bee", "一只蜜蜂。它会飞！"), ("food/cheese", "干" * 13), ("symbols/a", "字母")):
        path = root / name
        path.parent.mkdir(parents=True)
        path.with_suffix(".txt").write_text(f"A bee. It flies!\nzh_CN.utf8={chinese}\n", encoding="utf-8")
        draw("红色圆桌").save(path.with_suffix(".png"))
    found = list(stamp_pictures(tmp_path))
    assert [(picture.key, picture.names_en, picture.names_zh) for picture in found] == [
        ("animals__bee", ("A bee",), ("一只蜜蜂",))
    ]
    assert make_thumbnail(found[0].read()).width == 96


def test_common_nouns_of_both_languages(tmp_path: Path) -> None:
    dictionary, wordnet = tmp_path / "dict.txt", tmp_path / "data.noun"
    dictionary.write_text("椅子 90 n\n跑 99 v\n灯 99 n\n沙发 95 n\n台灯 3 n\n", encoding="utf-8")
    wordnet.write_text(
        "  1 the licence\n"
        "04099429 06 n 02 rocking_chair 0 rocker 2 002 @ 03002711 n 0000 | a chair\n"
        "09287968 17 n 01 hill 0 001 @ 09366317 n 0000 | not a thing that is pictured alone\n"
        "02084071 05 n 02 Canis_familiaris 0 dog 0 001 @ 02083346 n 0000 | a dog\n"
    )
    assert chinese_nouns(dictionary, 2) == ["沙发", "椅子"]
    assert english_nouns(wordnet) == ["rocking chair", "rocker", "dog"]


def test_hand_written_names_are_whole() -> None:
    classes, lexicon = read_imagenet_classes(), read_lexicon()
    assert classes[1].names_zh == ("金鱼",)
    assert classes[999].names_en == ("toilet tissue",)
    assert lexicon.translate("Chairs") == ("椅子", "座椅")
    assert read_lexicon(DATA / "qualities.tsv").translate("red") == ("红色",)
    titles = compose_titles(noun_pairs(lexicon, classes), 20)
    assert titles == compose_titles(noun_pairs(lexicon, classes), 20)
    assert all(chinese and english.isascii() for chinese, english in titles)
