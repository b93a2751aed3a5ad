package kit.text

import java.text.Normalizer
import java.util.Locale

/** A code point as the model reads it, and the UTF-16 units of the text that it stands for. */
data class Symbol(val code: Int, val begin: Int, val end: Int)

/** What the tokenizer does to texts: `tokenizer` in manifest.json. */
data class TokenizerSettings(
    val lowerCase: Boolean,
    val stripAccents: Boolean,
    /** Capitals are folded and told of in pieces of their own: `John met NASA` is `⁕ john met ⁑ nasa`. */
    val marksCase: Boolean = false,
)

const val ONE_CAPITAL = 0x2055 // ⁕
const val SEVERAL_CAPITALS = 0x2051 // ⁑
private const val SPACE = ' '.code
private const val REPLACEMENT = 0xFFFD // what decoders write for broken bytes
private val LINE_BLANKS = setOf('\t'.code, '\n'.code, '\r'.code)
private val INVISIBLE = setOf(Character.CONTROL, Character.FORMAT, Character.PRIVATE_USE)

/** BERT's normalizer, which remembers where each symbol stood. */
class SymbolReader(private val settings: TokenizerSettings) {

    /** Normalize a text that begins at unit `start` of a longer one. */
    fun read(text: String, start: Int = 0): List<Symbol> {
        var symbols = symbolsOf(text, start).mapNotNull(::clean)
        if (settings.stripAccents) symbols = symbols.flatMap(::withoutAccents)
        if (settings.marksCase) symbols = markCapitals(symbols)
        symbols = symbols.flatMap(::apartIfHan)
        return if (settings.lowerCase) symbols.flatMap(::lower) else symbols
    }

    /** Do before MediaPipe's tokenizer what it leaves out of BERT's: then its ids are BERT's. */
    fun fold(text: String): String =
        buildString { read(text).forEach { appendCodePoint(it.code) } }
}

private fun symbolsOf(text: String, start: Int): List<Symbol> = buildList {
    var place = 0
    while (place < text.length) {
        val code = text.codePointAt(place)
        val end = place + Character.charCount(code)
        add(Symbol(code, start + place, start + end))
        place = end
    }
}

/** Leave out what cannot be seen, and make a space of every blank. */
private fun clean(symbol: Symbol): Symbol? = when {
    symbol.code in LINE_BLANKS -> symbol.copy(code = SPACE)
    symbol.code == REPLACEMENT -> null
    Character.getType(symbol.code).toByte() in INVISIBLE -> null
    Character.isSpaceChar(symbol.code) -> symbol.copy(code = SPACE)
    else -> symbol
}

private fun withoutAccents(symbol: Symbol): List<Symbol> {
    if (symbol.code < 0x80) return listOf(symbol)
    return symbol.replacedBy(Normalizer.normalize(symbol.text(), Normalizer.Form.NFD))
        .filter { Character.getType(it.code).toByte() != Character.NON_SPACING_MARK }
}

/** Write a mark before each word that begins with a capital of ASCII. */
private fun markCapitals(symbols: List<Symbol>): List<Symbol> =
    symbols.flatMapIndexed { place, symbol ->
        val before = symbols.getOrNull(place - 1)
        if (!isCapital(symbol) || before != null && isWordCharacter(before)) return@flatMapIndexed listOf(symbol)
        val next = symbols.getOrNull(place + 1)
        val mark = if (next != null && isCapital(next)) SEVERAL_CAPITALS else ONE_CAPITAL
        listOf(symbol.copy(code = mark), symbol)
    }

private fun isCapital(symbol: Symbol) = symbol.code in 'A'.code..'Z'.code

private fun isWordCharacter(symbol: Symbol) =
    isCapital(symbol) || symbol.code in 'a'.code..'z'.code || symbol.code in '0'.code..'9'.code ||
        symbol.code == '_'.code

/** Each Han character is a word of its own. */
private fun apartIfHan(symbol: Symbol): List<Symbol> {
    if (HAN.none { symbol.code in it }) return listOf(symbol)
    val space = symbol.copy(code = SPACE)
    return listOf(space, symbol, space)
}

// The ranges of Hugging Face's tokenizers, a gap between the last two of U+2Bxxx included.
private val HAN = listOf(
    0x4E00..0x9FFF, 0x3400..0x4DBF, 0x20000..0x2A6DF, 0x2A700..0x2B73F, 0x2B740..0x2B81F,
    0x2B920..0x2CEAF, 0xF900..0xFAFF, 0x2F800..0x2FA1F,
)

// One at a time: at a word's end another letter would be made of a capital sigma.
private fun lower(symbol: Symbol): List<Symbol> = symbol.replacedBy(symbol.text().lowercase(Locale.ROOT))

private fun Symbol.text(): String = String(Character.toChars(code))

private fun Symbol.replacedBy(text: String): List<Symbol> =
    symbolsOf(text, 0).map { copy(code = it.code) }
