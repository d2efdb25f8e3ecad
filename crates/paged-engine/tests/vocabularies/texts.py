"""What the small vocabularies are trained on, and the texts whose ids are held to llama.cpp's."""

from pathlib import Path

ROOT = Path(__file__).parents[4]

MULTILINGUAL = """\
Größe, Äpfel und Öl kosten 3,50 €; süße Füße heißen 1234 Mal "ß".
L'été déjà passé, où est-il ? Ça va, garçon, naïve cœur.
Привет, мир! Как дела сегодня? Это просто текст на русском.
Γειά σου Κόσμε, τι κάνεις σήμερα;
日本語の文章です。漢字とひらがなとカタカナを交ぜて書きます。今日は良い天気ですね。
中文测试：你好，世界！今天天气很好，我们去公园吧。
한국어 텍스트입니다. 오늘은 날씨가 좋습니다.
مرحبا بالعالم، كيف حالك اليوم؟ هذا نص عربي ١٢٣.
שלום עולם! מה שלומך היום? זה טקסט בעברית.
हिन्दी में एक वाक्य है। नमस्ते दुनिया १२३।
ภาษาไทยเขียนไม่เว้นวรรค สวัสดีชาวโลก
I'm sure you're right, we've seen it, he'll say it's what I'd want: don't. IT'S WE'LL YOU'RE I'VE I'D I'M
12 123 1234 12345 123456 1,000,000 3.14159 0x1F 1990 2026 100% 42
He said 'tis so, 'twas so, 'tis not; rock 'n' roll, o'clock, 'sup, 'dunno, 'many, 'llama, 'really, 'very.
café été niño ä ö ü हिंदी में कितने मित्र थे? שָׁלוֹם לְכָל בְּנֵי
👍🏽 👨‍👩‍👧 🙂🙂 🇩🇪 ❤️ ☺
if (a <= b && c != d) { x += 1; y -= 2; } // done\n\n\tfoo->bar(*p, &q);\n\n\n    return  0;\n
camelCase HTMLParser fooBarBaz XMLHttpRequest snake_case_name a/b/c ==== ---- .... $x + $y ^ ~z |w| `code`
"""


def training():
    """Pieces of a few lines each, so that line ends are learned too."""
    files = ["README.md", "ARCHITECTURE.md", "crates/gguf/src/header.rs", "crates/decoding/src/sampler.rs"]
    whole = "\n".join([(ROOT / name).read_text()[:9000] for name in files] + [MULTILINGUAL] * 12)
    lines = whole.split("\n")
    return ["\n".join(lines[at : at + 3]) for at in range(0, len(lines), 3)]


TESTED = [
    "", " ", "  ", "   ", "\n", "\n\n", " \n \n", "\t\t", "\r\n", "a\n", " a", "  a", "a  ", "a \n b\n\n\n  c",
    "Hello, world! This is a test.", "The whole text, and nothing but the whole.",
    "I'm you're we've he'll I'd it's 'tis IT'S WE'LL 'Re 'vE x' '' 's 't'S",
    "0 1 12 123 1234 12345 123456 1234567 3.14159 1,000,000 0x1F", "½ ² ③ Ⅷ ٣٤٥٦ १२३४ 一二三",
    "👨\u200d👩\u200d👧 🏳️\u200d🌈 🇩🇪🇯🇵 👍🏽 ☺️ 🛜", "日本語の文章、漢字かな。カタカナ！ｶﾅ ABC日本abc", "你好，世界！「引号」测试123",
    "한국어 텍스트입니다. ㅋㅋ", "مرحبا بالعالم، كيف حالك؟ ١٢٣ مُشَكَّل", "שלום עולם! שָׁלוֹם", "हिन्दी में क्षत्रिय १२३", "ภาษาไทยไม่เว้นวรรค",
    "e\u0301 n\u0303 a\u0308\u0323 \u0301x Ünïcödé ß ſ ﬁ ǅ", "Größe Äpfel été naïve Привет мир Γειά",
    "fn main() {\n    println!(\"{}\", x);\n\tlet y = &mut z[1..];\n}\n", "int main(void) { return 0; } // x\r\n\r\n",
    "<html><body class=\"a\">&nbsp;</body></html>", "https://example.com/a/b?c=d&e=f#g C:\\dir", "a/b//c///\n/\n//x  /\n",
    "===---___***~~~+++^^^```|||<<<>>>$$$@@@###", "HTMLParserXMLHttpRequest fooBarBAZQux iPhone15Pro ÀBCdéF Aб бA",
    "\u00a0x y\u3000z\u2028w\u0085v \u200b \ufeff", "\x00a\x7f\x1bb \x0b\x0c", "\ue000\U0010ffff\ufffd\U0001fadc\u1c89",
    "…‥—–‘’“”«»。，、；：？！（）μΩ℃№™", "𝕳𝖊𝖑𝖑𝖔 𝟘𝟙 𐍈 𠀀", "a\u2581b \u2581\u2581 c",
    "'tis 'twas 'sup 'dunno 'llama 'really, x = {\n};\n\ncall();\n}\n", "cafe\u0301 हिंदी में כְּנֵי nin\u0303o",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>", " <tool> x<tool>  y", "a  \nb   \n c", "<|im_end", "</s>a<s>b</s> c", "<unk> <unk>",
    "<|user|>\n Hello <|end|>  <|end|>\n\nx", "<0x0A><0xff>", "x" * 70, "ab" * 40, " " * 33 + "x", "\n" * 20, "1" * 40, "é" * 20, "漢" * 20, "word " * 12, "!?" * 20,
]  # fmt: skip
