-- budget: verb, settings, epoch and sequence that whoever calls has seen, key or none, day or none, swarm; then what the verb
-- needs. Answers with a word, the epoch and the sequence of the book, and what the verb says.
local function verb()
  local key, day, swarm = ARGV[9], tonumber(ARGV[10]) or day_of(now), ARGV[11]
  local path = open_book(key, day, swarm)
  look_back(tonumber(ARGV[7]), tonumber(ARGV[8]))
  if not expire_due() or not forget_days() then
    save_book()
    return { 'again' }
  end
  local answer = verbs[ARGV[5]](key, day, swarm, path)
  save_book()
  table.insert(answer, 2, book.sequence)
  table.insert(answer, 2, book.epoch)
  return answer
end
