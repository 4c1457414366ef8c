"""The training pipeline's real steps on a few generated pictures and texts: no network, no downloaded weights."""

from dataclasses import replace
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
    text_features,
    train_heads,
)
from training.collect import Product, components, held_out_components
from training.coloured import add_looks
from training.concepts import NamedConcepts, find_class_synsets
from training.export import assemble_dual_encoder, save_dual_encoder, save_static_text_model
from training.names import DATA, ImageNetClass, read_imagenet_classes, read_lexicon, read_looks, read_things
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
from training.texts import chinese_nouns, compose_titles, english_nouns, in_phrases, noun_pairs
from training.vision import FEATURE_DIM, compile_encoder, extract_features
from training.vocabulary import build_tokenizer
from training.wordnet import WordNet

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
    weight = torch.randn(4, FEATURE_DIM, generator=generator)
    return ClassKnowledge(weight, torch.zeros(4), [[0], [1], [2], [3]], torch.arange(4), torch.eye(4))


@pytest.fixture(scope="module")
def trained(pictures: list[CaptionedPicture], tokenizer: Tokenizer) -> tuple[Heads, TextTower, TokenTable, Collection]:
    """Heads on random text embeddings, then a text tower distilled and tuned."""
    collection = Collection(pictures)
    teacher = torch.randn(len(collection.texts), 32, generator=torch.Generator().manual_seed(1))
    parallel = torch.tensor([[2 * i, 2 * i + 1] for i in range(len(TITLES))])
    known = knowledge(collection)
    features = text_features(teacher, known.guess(teacher))
    settings = AlignmentSettings(steps=60, class_weight=0.01, concepts=3, concept_weight=0.01, learning_rate=2e-3)
    heads = train_heads(collection, features, known, parallel, settings)
    with torch.no_grad():
        targets = heads.embed_texts(features)
    tokens = TokenTable(tokenizer, collection.texts)
    distillation = DistillationSettings(bag_epochs=20, epochs=20)
    words = distil_bag(tokens, tokenizer.get_vocab_size(), targets, distillation)
    tower = distil_tower(tokens, tokenizer.get_vocab_size(), targets, words, distillation)
    tuning = TuningSettings(steps=20, batch=8, names=2, name_weight=0.01)
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


def test_names_are_put_in_phrases_of_their_language() -> None:
    texts = ["猫", "cat", "一" * 9, "深棕色皮质沙发 带扶手"]
    phrases, rows = in_phrases(texts, [1], 200)
    assert len(phrases) == len(rows) == 202
    assert rows[200:] == [1, 1]
    assert set(rows) == {0, 1}
    assert all(texts[row] in phrase and phrase != texts[row] for phrase, row in zip(phrases, rows, strict=True))
    assert {"一只猫", "猫照片", "a cat", "photo of cat"} <= set(phrases)
    assert (phrases, rows) == in_phrases(texts, [1], 200)


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
    weight = torch.randn(4, FEATURE_DIM, generator=generator)
    known = ClassKnowledge(weight, torch.zeros(4), [[0], [1], [2], [3]], torch.arange(4), torch.eye(4))
    features = text_features(embeddings, known.guess(embeddings))
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


WORDNET = {  # name: lexicographer file, wider kinds; the order is that of the offsets
    "entity": ("03", ()),
    "animal": ("05", ("entity",)),
    "bird": ("05", ("animal",)),
    "crane/bird": ("05", ("bird",)),
    "heron": ("05", ("bird",)),
    "dog": ("05", ("animal",)),
    "poodle": ("05", ("dog",)),
    "beagle": ("05", ("dog",)),
    "device": ("06", ("entity",)),
    "crane/device": ("06", ("device",)),
    "duck/meat": ("13", ("entity",)),
    "duck/bird": ("05", ("bird",)),
    "goose": ("05", ("bird",)),
    "house": ("06", ("device",)),
    "box": ("06", ("device",)),
    "box of paints": ("06", ("poodle",)),
}


MEANT = {"lifter": "=crane", "duck": "bird", "ghost": "-", "dog crane": "device", "griffin": "no such thing"}


@pytest.fixture(scope="module")
def wordnet(tmp_path_factory: pytest.TempPathFactory) -> WordNet:
    """A dozen nouns in WordNet's own file format; a slash sets the senses of one name apart."""
    folder = tmp_path_factory.mktemp("wordnet")
    offsets = {name: 1000 + 10 * row for row, name in enumerate(WORDNET)}
    lines = ["  1 This software and database is being provided to you"]
    senses: dict[str, list[int]] = {}
    for name, (file, kinds) in WORDNET.items():
        word = name.partition("/")[0].replace(" ", "_")
        pointers = " ".join(f"@ {offsets[kind]:08} n 0000" for kind in kinds)
        lines.append(f"{offsets[name]:08} {file} n 01 {word} 0 {len(kinds):03} {pointers} | what it is")
        senses.setdefault(word, []).append(offsets[name])
    index = [f"{word} n {len(o)} 1 @ {len(o)} 0 {' '.join(f'{x:08}' for x in o)}" for word, o in senses.items()]
    (folder / "data.noun").write_text("\n".join(lines) + "\n", encoding="latin-1")
    (folder / "index.noun").write_text("\n".join(index) + "\n", encoding="latin-1")
    (folder / "noun.exc").write_text("geese goose\n", encoding="latin-1")
    return WordNet(folder, MEANT)


CLASSES = [ImageNetClass((en,), (zh,)) for en, zh in (("crane", "鹤"), ("poodle", "贵宾犬"), ("crane", "起重机"))]


def test_classes_are_told_apart_by_their_order_in_wordnet(wordnet: WordNet) -> None:
    found = find_class_synsets(CLASSES, wordnet)
    assert [wordnet.synsets[offset or 0].file for offset in found] == ["05", "05", "06"]


def test_a_sense_is_chosen_by_the_kind_that_stands_behind_it(wordnet: WordNet) -> None:
    files = {name: wordnet.synsets[wordnet.pictured(name) or 0].file for name in ("crane device", "crane", "duck")}
    assert files == {"crane device": "06", "crane": "05", "duck": "05"}
    assert wordnet.pictured("unicorn") is None


def test_a_sense_is_the_one_that_the_lists_say(wordnet: WordNet) -> None:
    """A synonym or wider kind of it, or another thing."""
    assert wordnet.synsets[wordnet.pictured("lifter") or 0].names == ("crane",)
    assert wordnet.synsets[wordnet.pictured("duck") or 0].file == "05"
    assert wordnet.synsets[wordnet.pictured("dog crane") or 0].file == "06"
    assert wordnet.pictured("ghost") is None
    with pytest.raises(ValueError, match="no griffin that is a no such thing"):
        wordnet.pictured("griffin")


def test_a_plural_has_the_senses_of_its_singular(wordnet: WordNet) -> None:
    assert [wordnet.senses(plural) for plural in ("herons", "geese")] == [
        wordnet.senses("heron"),
        wordnet.senses("goose"),
    ]


def test_a_name_that_is_no_class_has_the_classes_of_its_kind(wordnet: WordNet) -> None:
    looks = [(("吊臂",), ("poodle",))]
    concepts = NamedConcepts(wordnet, CLASSES, [("heron", "鹭/白鹭"), ("dog", "狗")], looks)
    guessed = np.full((7, 3), 1 / 3, np.float32)
    shares = concepts.shares(["白鹭", "heron", "beagle", "黑色小狗", "吊臂", "没有的", "dog with a crane"], guessed)
    assert shares.argmax(1).tolist()[:5] == [0, 0, 1, 1, 1]
    assert shares[5].tolist() == guessed[5].tolist()
    assert shares[6].argmax() == 1
    assert np.allclose(shares.sum(1), 1)


def test_a_title_names_its_longest_known_end(wordnet: WordNet) -> None:
    lines = [("box", "盒子/门"), ("house", "家"), ("dog", "狗")]
    looks = [(("box of paints",), ("poodle",))]
    concepts = NamedConcepts(wordnet, [*CLASSES, ImageNetClass(("box",), ("纸盒",))], lines, looks)
    ends = {
        "small boxes": 3,  # in the singular, too
        "red box of paints": 1,
        "red box of apples": 3,
        "two dogs with a box": 1,
        "科学作家": None,  # a writer is no house
        "公狗": 1,
        "专门": None,  # nor is what is special a door
        "黑色木门": 3,
        "一只狗": 1,
        "a dog": 1,
        "a white beagle": 1,  # WordNet's
    }
    guessed = np.full((len(ends), 4), 1 / 4, np.float32)
    shares = concepts.shares(list(ends), guessed)
    found = [None if np.ptp(row) == 0 else int(row.argmax()) for row in shares]
    assert dict(zip(ends, found, strict=True)) == ends


def test_the_word_lists_name_classes_that_there_are() -> None:
    known = {name for c in read_imagenet_classes() for name in c.names_en}
    assert [name for _, classes in read_looks() for name in classes if name not in known] == []
    assert len(read_things()) > 1800


def test_colours_stand_beside_the_thing_they_were_painted_on(pictures: list[CaptionedPicture]) -> None:
    """A batch of looks has a thing in its colours, and each caption names one of them."""
    product = Product("p1", "木椅", "wooden chair", "椅凳", "Chair", "椅子")
    own = CaptionedPicture("product:p1", pictures[0].features, (Caption("木椅"),), instance=True)
    painted = CaptionedPicture("product:p1-red", pictures[1].features, (Caption("红色椅子"),), looks="p1")
    blue = replace(painted, concept="product:p1-blue", captions=(Caption("蓝色椅子"),))
    stray = CaptionedPicture("product:p2-red", pictures[1].features, (Caption("红色桌子"),), looks="p2")
    mixed = [own]
    add_looks(mixed, [product], [painted, blue, stray])
    assert [picture.concept for picture in mixed] == ["product:p1", "product:p1-red", "product:p1-blue"]
    batch = Collection(mixed).sample_looks(5, np.random.default_rng(0))
    assert batch.positive.tolist() == [[True, False], [False, True]]
