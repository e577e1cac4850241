-- tasks_waits <how many at most> <task>*: these tasks and what they wait for, and so on.
local function verb()
  local names = {}
  for place = 6, #ARGV do
    names[#names + 1] = name_of(ARGV[place])
  end
  open()
  return { 'ok', waiters(names, tonumber(ARGV[5])) }
end
