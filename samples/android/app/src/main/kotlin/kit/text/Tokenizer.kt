package kit.text

/** A piece of a word: its id, the number of its word, and the UTF-16 units of the text it stands for. */
data class Piece(val id: Int, val word: Int, val begin: Int, val end: Int)

/**
 * BERT's WordPiece tokenizer.
 *
 * @param vocabulary the lines of vocab.txt; a line's number is its id
 */
class Tokenizer(vocabulary: List<String>, settings: TokenizerSettings) {
    private val ids = vocabulary.withIndex().associate { (id, piece) -> piece to id }
    private val reader = SymbolReader(settings)
    private val unknown = idOf("[UNK]")
    val open = idOf("[CLS]")
    val close = idOf("[SEP]")

    /** Ids of the marks of capitals, which belong to no word. */
    val marks: Set<Int> = if (!settings.marksCase) emptySet() else
        setOf(ONE_CAPITAL, SEVERAL_CAPITALS).map { idOf(String(Character.toChars(it))) }.toSet()

    /** Encode a text, cut to `limit` tokens, [CLS] and [SEP] included. */
    fun encode(text: String, limit: Int): IntArray =
        intArrayOf(open) + pieces(text).take(limit - 2).map { it.id } + close

    /** Split a text into pieces, without special ones around them. */
    fun pieces(text: String): List<Piece> {
        val found = mutableListOf<Piece>()
        var word = 0
        for ((section, start) in sections(text)) {
            if (section in SPECIAL && section in ids) {
                found += Piece(idOf(section), word++, start, start + section.length)
            } else {
                for (symbols in wordsOf(reader.read(section, start))) found += piecesOf(symbols, word++)
            }
        }
        return found
    }

    private fun idOf(piece: String): Int = requireNotNull(ids[piece]) {
        "vocab.txt has no line $piece. Copy vocab.txt and manifest.json of one artifact."
    }

    /** Take the longest piece that the word begins with, then of the rest. */
    private fun piecesOf(symbols: List<Symbol>, word: Int): List<Piece> {
        val whole = Piece(unknown, word, symbols.first().begin, symbols.last().end)
        if (symbols.size > LONGEST_WORD) return listOf(whole)
        val codes = IntArray(symbols.size) { symbols[it].code }
        val found = mutableListOf<Piece>()
        var start = 0
        while (start < codes.size) {
            var end = codes.size
            var id: Int? = null
            while (end > start && id == null) {
                val text = String(codes, start, end - start)
                id = ids[if (start == 0) text else "##$text"]
                if (id == null) end--
            }
            found += Piece(id ?: return listOf(whole), word, symbols[start].begin, symbols[end - 1].end)
            start = end
        }
        return found
    }

    private companion object {
        const val LONGEST_WORD = 100 // in symbols; a longer one is unknown
    }
}

// What is written so in a text is read as the special piece itself.
private val SPECIAL = listOf("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
private val SPECIAL_IN_TEXT = Regex(SPECIAL.joinToString("|") { Regex.escape(it) })

/** Cut a text around special pieces: each section with the unit that it begins at. */
private fun sections(text: String): List<Pair<String, Int>> = buildList {
    var start = 0
    for (match in SPECIAL_IN_TEXT.findAll(text)) {
        add(text.substring(start, match.range.first) to start)
        add(match.value to match.range.first)
        start = match.range.last + 1
    }
    add(text.substring(start) to start)
}

/** Split at spaces and around punctuation. */
private fun wordsOf(symbols: List<Symbol>): List<List<Symbol>> {
    val words = mutableListOf<MutableList<Symbol>>()
    var open = false
    for (symbol in symbols) {
        val alone = isPunctuation(symbol.code)
        when {
            symbol.code == ' '.code -> open = false
            open && !alone -> words.last() += symbol
            else -> {
                words += mutableListOf(symbol)
                open = !alone
            }
        }
    }
    return words
}

private val PUNCTUATION = setOf(
    Character.CONNECTOR_PUNCTUATION, Character.DASH_PUNCTUATION, Character.START_PUNCTUATION,
    Character.END_PUNCTUATION, Character.INITIAL_QUOTE_PUNCTUATION,
    Character.FINAL_QUOTE_PUNCTUATION, Character.OTHER_PUNCTUATION,
)

// BERT counts all signs of ASCII, such as $ and +, which Unicode calls symbols.
private fun isPunctuation(code: Int): Boolean =
    if (code < 0x80) code in 33..126 && !Character.isLetterOrDigit(code)
    else Character.getType(code).toByte() in PUNCTUATION
