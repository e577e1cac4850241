-- Whether the server has forgotten something that somebody has seen.
--
-- A server that begins anew with older data does not know it. But whoever calls says the highest epoch and sequence that it has
-- seen, and an epoch is one life of a server process: what has happened in it ends where the next one begins.

local function begin_life()
  if #book.lives >= MOST_LIVES then
    table.remove(book.lives, 1)
  end
  book.epoch = at_least(number(), book.epoch + 1)
  book.lives[#book.lives + 1] = { epoch = book.epoch, begun = book.sequence }
  save_lives()
end

-- Where the book stood at the end of a life, whether or not it is known: where the first one began that is younger.
local function end_of_life(epoch)
  for _, life in ipairs(book.lives) do
    if life.epoch > epoch then
      return life.begun
    end
  end
  return book.sequence
end

-- Whether what was done then is lost.
local function is_lost(epoch, sequence)
  return epoch > 0 and sequence > end_of_life(epoch)
end

-- Nothing is granted any more, until a person has looked at it.
local function freeze(epoch, sequence)
  journal { component = 'budget', operation = 'freeze', subject = 'ledger', params = { 'seen_epoch', epoch, 'seen_sequence',
    sequence, 'epoch', book.epoch, 'sequence', book.sequence }, severity = 'CRITICAL' }
  escalate { key = 'budget:regressed', reason = 'the store has forgotten what was spent', payload = '{"seen_epoch":' ..
    int(epoch) .. ',"seen_sequence":' .. int(sequence) .. ',"sequence":' .. int(book.sequence) .. '}', severity = 'CRITICAL' }
  book.epoch = at_least(book.epoch, epoch)
  begin_life()
  book.frozen = book.epoch
end

-- Somebody has seen so much. What was lost in lives before the last time has been told.
local function notice(epoch, sequence)
  if epoch >= book.frozen and is_lost(epoch, sequence) then
    freeze(epoch, sequence)
  end
end

-- Looks whether this is the book that this server process has left, or the beginning of another life.
local function look_back(epoch, sequence)
  local seen = alive[P]
  if not seen or book.epoch == 0 then
    begin_life()
  end
  if seen then
    notice(seen.epoch, seen.sequence)
  end
  notice(epoch, sequence)
end

-- Whether nothing is granted to a path because something was lost.
local function is_frozen(path)
  if book.frozen == 0 then
    return false
  end
  for _, account in ipairs(path) do
    if account.thawed >= book.frozen then
      return false
    end
  end
  return true
end
