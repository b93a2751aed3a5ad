/// Token ids of one run of the model.
public struct Window {
    public let ids: [Int32]
    let pieces: [Piece?] // nil for [CLS] and [SEP]
}

/// Where a word's first piece stands, and the scalars of the word in the text.
public struct Word {
    public fileprivate(set) var window: Int
    public fileprivate(set) var token: Int
    fileprivate(set) var begin: Int
    fileprivate(set) var end: Int
}

private let overlap = 16 // tokens that a window shares with the one before

extension Tokenizer {
    /// Encode a text in windows of at most `limit` tokens: nothing is cut.
    public func windows(_ text: String, limit: Int) -> [Window] {
        let pieces = pieces(text)
        let room = limit - 2
        let step = room - min(overlap, room / 2)
        var windows: [Window] = []
        var start = 0
        repeat {
            let part = pieces[start..<min(start + room, pieces.count)]
            windows.append(Window(ids: [open] + part.map(\.id) + [close], pieces: [nil] + part.map(Optional.some) + [nil]))
            start += step
        } while start + room - step < pieces.count
        return windows
    }
}

/// Find each word's first piece, in the window that shows most around it.
///
/// - Parameter skipped: ids of pieces that belong to no word
public func placeWords(_ windows: [Window], skipped: Set<Int32>) -> [Word] {
    var words: [Int: Word] = [:]
    var rooms: [Int: Int] = [:] // tokens to the nearer edge of the window
    for (number, window) in windows.enumerated() {
        var before: Int?
        for (token, piece) in window.pieces.enumerated() {
            guard let piece, !skipped.contains(piece.id) else { continue }
            var word = words[piece.word] ?? Word(window: number, token: token, begin: piece.begin, end: piece.end)
            word.begin = min(word.begin, piece.begin)
            word.end = max(word.end, piece.end)
            // A window that opens inside a word does not show that word's first piece.
            let inside = token == 1 && number > 0 && isInside(windows, number, piece)
            let room = min(token, window.ids.count - 1 - token)
            if piece.word != before, !inside, room >= rooms[piece.word] ?? -1 {
                rooms[piece.word] = room
                word.window = number
                word.token = token
            }
            words[piece.word] = word
            before = piece.word
        }
    }
    return words.sorted { $0.key < $1.key }.map(\.value)
}

/// Tell whether another window holds an earlier piece of the word that this one opens with.
private func isInside(_ windows: [Window], _ number: Int, _ first: Piece) -> Bool {
    windows.enumerated().contains { other, window in
        other != number && window.pieces.contains { piece in
            piece.map { $0.word == first.word && $0.begin < first.begin } ?? false
        }
    }
}
