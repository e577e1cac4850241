-- tasks_suspects <task> <mark> <how many at most>: this one was looked at. Answers with the next one, its mark, and what it
-- waits for, and so on.
local function verb()
  open()
  if ARGV[5] ~= '0' then
    deadlock.clear(name_of(ARGV[5]), tonumber(ARGV[6]))
  end
  local first = call('ZRANGE', P .. 'rings', 0, 0, 'WITHSCORES')
  if not first[1] then
    M.suspects, M.changed = 0, true
    return { 'ok', {} }
  end
  return { 'ok', { tonumber(first[1]), tonumber(first[2]), waiters({ first[1] }, tonumber(ARGV[7])) } }
end
